"""Planted candidates, through the real child process: what fails is recorded by its
type and never chosen, and the tuning goes on."""

import dataclasses
import functools
import sys

import pytest

from keras_diagwise import backends
from keras_diagwise.algorithms import ALGORITHMS
from keras_diagwise.problem import PASSES
from keras_diagwise.storage.store import Store
from keras_diagwise.tuner import comparer, subprocess_runner
from keras_diagwise.tuner.candidates import is_decided
from keras_diagwise.tuner.tuner import Tuner
from tests.algorithms.suite import depthwise
from tests.tuner.planted import IN_COMPILATION, Planted

PROBLEM = depthwise((6, 6), 4, (3, 3))
TIMEOUT = 5.0

TYPES = {
    "wrong": ("wrong numbers", "times what rounding explains"),
    "wrong in one place": ("wrong numbers", "off by"),
    "nan": ("not finite", "NaN"),
    "another shape": ("exception", "must have the shape"),
    "exception": ("exception", "RuntimeError: planted: it can't"),
    "memory error": ("out of memory", "MemoryError: planted: 16 TiB"),
    "resources exhausted": ("out of memory", "RESOURCE_EXHAUSTED"),
    "killed": ("out of memory", "ended by SIGKILL"),
    "abort": ("crash", "ended by SIGABRT"),
    "hang": ("timeout", "No answer after 5"),
    "when timed": ("crash", "while it was timed: The child ended by SIGABRT"),
}


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def tune(patch, tmp_path_factory):
    """Tunes a problem with planted candidates, all of which are timed unless they
    fail: none is pruned, and none too slow."""
    patch.setattr(comparer, "OUTPACED", float("inf"))
    patch.setattr(comparer, "BEHIND", float("inf"))
    patch.setattr(comparer, "SECONDS_PER_PASS", 0.01)
    patch.setattr(comparer, "why_pruned", lambda *arguments, **options: None)
    patch.setitem(ALGORITHMS, "planted", Planted)
    patch.delitem(ALGORITHMS, "diagonal")
    store = Store(tmp_path_factory.mktemp("store"))
    used = Tuner(store, timeout=TIMEOUT)

    def run(*planted, passes=PASSES, problem=PROBLEM, used=used):
        patch.setattr(Planted, "planted", planted)
        used.tune(problem, passes)
        decision = store.get(used.environment, problem)
        assert all(is_decided(decision, name) for name in passes)
        return decision

    run.tuner = used
    yield run
    used.close()


@pytest.fixture(scope="module")
def tune_ahead(tune):
    """The same as on an accelerator: candidates are compiled before they are run."""
    here = tune.tuner.environment
    there = dataclasses.replace(here, device_kind="gpu", device_name="planted")
    used = Tuner(tune.tuner.store, there, timeout=TIMEOUT)
    yield functools.partial(tune, used=used)
    used.close()


@pytest.fixture(scope="module")
def child_with(patch):
    """Has the children be those in which something else fails."""

    def start(fault):
        def command(descriptor):
            program = [sys.executable, "-m", "tests.tuner.planted"]
            return [*program, fault, str(descriptor)]

        patch.setattr(subprocess_runner, "child_command", command)

    return start


@pytest.fixture(scope="module")
def faulty(tune, child_with):
    """The decision for a pass with every kind of fault, and one candidate behind
    them that has none."""
    child_with("when timed")
    planted = [Planted(fault) for fault in (*TYPES, "none")]
    return tune(*planted, passes=PASSES[:1])


SOUND = {"native", "direct", "planted:none"}
if backends.active.COMPILES_ALONE:
    SOUND.add("direct:compiled")


@pytest.mark.parametrize("fault", TYPES)
def test_a_fault_is_a_typed_failure(faulty, fault):
    """A candidate that fails has a typed failure."""
    outcome = faulty.passes["forward"].outcomes[f"planted:{fault}"]
    failure, reason = TYPES[fault]
    assert outcome.failure == failure
    assert reason in outcome.reason
    assert outcome.seconds is None


def test_tuning_goes_on_after_a_fault(faulty):
    """Tuning goes on with the next candidate."""
    timed = set(faulty.passes["forward"].seconds)
    assert timed == SOUND


@pytest.mark.parametrize("fault", ["exception", "abort", "hang"])
def test_a_fault_compiling_costs_no_other(tune_ahead, child_with, fault):
    """Though all are compiled together, in one process."""
    child_with("none")
    problem = depthwise((7, 7), 2 + IN_COMPILATION.index(fault), (3, 3))
    planted = [Planted(fault), Planted("none")]
    decision = tune_ahead(*planted, passes=PASSES[:1], problem=problem)
    outcome = decision.passes["forward"].outcomes[f"planted:{fault}"]
    failure, reason = TYPES[fault]
    assert outcome.failure == failure
    assert reason in outcome.reason
    assert set(decision.passes["forward"].seconds) == SOUND


def test_what_failed_is_never_chosen(faulty):
    for margin in (0.0, 1.0, 1.03, 2.0):
        assert str(faulty.plan(margin).forward) in SOUND


@pytest.mark.parametrize("wrong", PASSES)
def test_wrong_in_one_pass_serves_in_others(tune, wrong):
    """A candidate that is wrong in one pass can serve in the others."""
    problem = depthwise((5, 5), 1 + PASSES.index(wrong), (3, 3))
    decision = tune(Planted("wrong", wrong), problem=problem)
    name = f"planted:wrong:{wrong}"
    assert decision.passes[wrong].outcomes[name].failure == "wrong numbers"
    others = set(PASSES) - {wrong}
    assert all(name in decision.passes[other].seconds for other in others)


def test_a_wrong_native_is_not_chosen(tune, child_with):
    """A native that is wrong is reported and not chosen."""
    child_with("native")
    tune.tuner.close()
    decision = tune(problem=depthwise((8, 8), 4, (3, 3)))
    for name in PASSES:
        outcome = decision.passes[name].outcomes["native"]
        assert outcome.failure == "wrong numbers"
        assert "times what rounding explains" in outcome.reason
        assert str(decision.plan(1.03)[name]).startswith("direct")
