"""Timing: what is called, in which order, and what is counted."""

import numpy as np

from keras_diagwise.tuner import measure


class Clock:
    """A clock that only the functions under test move."""

    now = 0.0

    def __call__(self):
        return self.now


def timed(monkeypatch, costs, **options):
    clock, calls = Clock(), []
    monkeypatch.setattr(measure.time, "perf_counter", clock)

    def function(name):
        def run(operand):
            calls.append(name)
            clock.now += costs[name]
            return np.zeros(())

        return run

    monkeypatch.setattr(measure.backends.active, "synchronize", lambda result: None)
    samples = measure.interleaved({n: function(n) for n in costs}, [1], **options)
    return samples, calls


def test_samples_are_what_a_call_takes(monkeypatch):
    samples, _ = timed(monkeypatch, {"a": 0.5, "b": 1e-4}, seconds=2.0)
    for name, cost in {"a": 0.5, "b": 1e-4}.items():
        np.testing.assert_allclose(samples[name], cost, rtol=1e-6)
        assert len(samples[name]) >= 3
    medians = measure.medians(samples)
    np.testing.assert_allclose([medians["a"], medians["b"]], [0.5, 1e-4])


def test_rounds_are_interleaved_and_shuffled(monkeypatch):
    _, calls = timed(
        monkeypatch, {"a": 0.01, "b": 0.01, "c": 0.01}, seconds=1.0, most_rounds=20
    )
    rounds = [calls[i : i + 3] for i in range(6, len(calls), 3)]
    assert len(rounds) == 20
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 2


def test_the_budget_ends_the_rounds_but_for_the_least(monkeypatch):
    samples, _ = timed(monkeypatch, {"slow": 10.0}, seconds=1.0)
    assert len(samples["slow"]) == 3
    samples, _ = timed(monkeypatch, {"quick": 0.1}, seconds=1.0)
    assert 9 <= len(samples["quick"]) <= 11
