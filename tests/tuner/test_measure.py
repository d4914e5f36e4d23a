"""Timing: what is called, in which order, and what is counted."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_diagwise.tuner import measure
from tests.simulated_gpu import SimulatedGpu


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
    samples = measure.interleaved(
        {n: function(n) for n in costs}, [np.zeros(())], **options
    )
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
        monkeypatch, {"a": 0.01, "b": 0.01, "c": 0.01}, seconds=1.0, max_rounds=20
    )
    rounds = [calls[i : i + 3] for i in range(6, len(calls), 3)]
    assert len(rounds) == 20
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 2


def test_the_budget_ends_the_rounds(monkeypatch):
    """The budget ends the rounds, but not before the fewest are done."""
    samples, _ = timed(monkeypatch, {"slow": 10.0}, seconds=1.0)
    assert len(samples["slow"]) == 3
    samples, _ = timed(monkeypatch, {"quick": 0.1}, seconds=1.0)
    assert 9 <= len(samples["quick"]) <= 11


def test_a_sample_can_be_one_call(monkeypatch):
    """With no length, a sample is one call, however fast: all are called as often."""
    samples, calls = timed(
        monkeypatch, {"a": 1e-5, "b": 1e-4}, seconds=0, sample_seconds=0.0
    )
    for name in "ab":
        assert calls.count(name) == len(samples[name]) + 2


def test_an_accelerator_is_warmed_up_first(monkeypatch):
    monkeypatch.setattr(measure, "timing_policy", lambda: measure.ACCELERATOR)
    samples, calls = timed(monkeypatch, {"a": 0.04, "b": 0.02}, seconds=0.1)
    before = len(calls) - sum(map(len, samples.values()))
    assert before == 2 * 2 + 2 * 5  # until 0.3 s are over, each in its turn


def test_a_warm_accelerator_is_timed_at_once(monkeypatch):
    monkeypatch.setattr(measure, "timing_policy", lambda: measure.ACCELERATOR)
    for idle, warms_up in ((1.9, False), (2.0, True)):
        samples, calls = timed(monkeypatch, {"a": 0.04}, seconds=0, idle_seconds=idle)
        before = len(calls) - len(samples["a"])
        assert (before > 2) == warms_up


def test_calls_are_waited_for_once_a_sample(monkeypatch):
    """Calls are queued, and waited for once a sample.

    As on a device that computes asynchronously.
    """
    clock, queue = Clock(), []
    monkeypatch.setattr(measure.time, "perf_counter", clock)

    def run():
        clock.now += 1e-5
        queue.append(1e-3)
        return np.zeros(())

    def synchronize(result):
        clock.now += sum(queue)
        queue.clear()

    monkeypatch.setattr(measure.backends.active, "synchronize", synchronize)
    monkeypatch.setattr(measure, "timing_policy", lambda: measure.ACCELERATOR)
    samples = measure.interleaved({"a": run}, (), seconds=0.1)
    np.testing.assert_allclose(samples["a"], 1.01e-3, rtol=1e-3)


def test_device_events_tell_the_time(monkeypatch):
    """The device tells the time where it can.

    The host's clock stands still here, so only the events tell the time.
    """
    queued = []

    class Event:
        def record(self):
            queued.append(self)

        def synchronize(self):
            self.is_over = True

        def elapsed_time(self, last):
            assert last.is_over
            between = queued[queued.index(self) + 1 : queued.index(last)]
            return 1e3 * sum(between)  # milliseconds

    active = measure.backends.active
    monkeypatch.setattr(active, "device_events", lambda: [Event(), Event()])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: 0.0)
    taken = measure.seconds_of(lambda: queued.append(7e-3))
    np.testing.assert_allclose(taken, 7e-3)


@pytest.mark.parametrize("has_events", [True, False])
@pytest.mark.parametrize(
    ("host", "device", "paid"),
    [(40e-6, 5e-6, 40e-6), (10e-6, 150e-6, 150e-6), (30e-6, 30e-6, 30e-6)],
)
def test_launch_or_kernel_counts(monkeypatch, host, device, paid, has_events):
    """Of calls in a row: what is launched more slowly than it runs leaves gaps, which
    lie between the events as they lie in a step in eager code."""
    gpu = SimulatedGpu()
    gpu.install(monkeypatch, has_events)
    calls = {"a": lambda: gpu.call(host, device)}
    samples = measure.interleaved(calls, (), seconds=0.1)
    np.testing.assert_allclose(samples["a"], paid, rtol=0.01)


def test_launches_decide_for_small_kernels(monkeypatch):
    """A kernel that is twice as fast loses, if its launch takes twice as long."""
    gpu = SimulatedGpu()
    gpu.install(monkeypatch)
    calls = {
        "quick to run": lambda: gpu.call(40e-6, 5e-6),
        "quick to launch": lambda: gpu.call(20e-6, 10e-6),
    }
    medians = measure.medians(measure.interleaved(calls, (), seconds=0.1))
    ratio = medians["quick to run"] / medians["quick to launch"]
    np.testing.assert_allclose(ratio, 2, rtol=0.01)


def test_calls_rotate_uncached_operands(monkeypatch):
    """Calls in a row take operands that no cache holds."""
    operands = [keras.ops.ones((2, 3)), keras.ops.zeros((4,))]  # 40 bytes
    assert measure.copies_of(operands, measure.CPU) == [operands]
    ways = dataclasses.replace(measure.ACCELERATOR, rotated_bytes=150)
    copies = measure.copies_of(operands, ways)
    assert len(copies) == 4
    for copy in copies[1:]:
        for one, other in zip(copy, operands, strict=True):
            assert one is not other
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    call = measure.in_turn(lambda one, other: id(one), copies)
    seen = [call() for _ in range(8)]
    assert seen[:4] == seen[4:]
    assert len(set(seen)) == 4
    assert len(measure.copies_of(operands, measure.ACCELERATOR)) == measure.MAX_COPIES
    monkeypatch.setattr(measure, "timing_policy", lambda: ways)
    seen = []
    noted = {"a": lambda one, other: seen.append(id(one))}
    measure.interleaved(noted, operands, seconds=0)
    assert len(set(seen)) == 4
