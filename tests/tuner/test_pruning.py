"""Pruning: what can't win by arithmetic, memory, compilation or history."""

import dataclasses

import pytest

from keras_diagwise.algorithms import Diagonal, Direct
from keras_diagwise.tuner.pruning import (
    BEHIND,
    HOPELESS,
    MAX_COMPILE_SECONDS,
    SpeedHistory,
    why_pruned,
)
from keras_diagwise.tuner.roofline import Roofline
from tests.algorithms.suite import depthwise

PROBLEM = depthwise((28, 28), 64, (3, 3), batch=8)
FAST = Roofline(copies=((1, 1e-9), (2**30, 1e-8)), flops_per_second=1e30)
DENSE = Diagonal.parse(["64"])


def why(candidate, problem=PROBLEM, best=1.0, roofline=FAST, history=None):
    return why_pruned(
        candidate, problem, "forward", best=best, roofline=roofline, history=history
    )


def test_too_much_arithmetic_is_pruned():
    """A candidate whose arithmetic alone takes longer than the best is pruned."""
    seconds = 2.0
    roofline = dataclasses.replace(
        FAST, flops_per_second=DENSE.work(PROBLEM).flops / seconds
    )
    assert "arithmetic alone takes 2 s" in why(DENSE, best=1.9, roofline=roofline)
    assert why(DENSE, best=2.1, roofline=roofline) is None
    assert why(Direct(), best=1.9, roofline=roofline) is None


def test_too_much_memory_is_pruned():
    huge = depthwise((2, 2), 4096, (3, 3), batch=1)
    assert "MiB" in why(Diagonal.parse(["4096"]), huge)
    assert why(Diagonal.parse(["8"]), huge) is None


def test_without_history_less_is_pruned():
    """Without a history, only arithmetic and memory count."""
    many = Diagonal.parse(["1", "split"])
    channels = depthwise((4, 4), 1024, (3, 3))
    assert why(many, channels) is None
    assert "too long to compile" in why(many, channels, history=SpeedHistory())


def test_compile_time_is_learnt_from_others():
    """The time to compile is predicted from that of other candidates."""
    history = SpeedHistory()
    few, many = Diagonal.parse(["32", "split"]), Diagonal.parse(["4", "split"])
    operations = few.work(PROBLEM).operations
    assert why(many, history=history) is None
    history.learn_compilation(few, PROBLEM, 0.9 * MAX_COMPILE_SECONDS)
    each = 0.9 * MAX_COMPILE_SECONDS / operations
    expected = each * many.work(PROBLEM).operations
    assert history.compile_seconds(many, PROBLEM) == pytest.approx(expected)
    assert "too long to compile" in why(many, history=history)
    assert why(few, history=history) is None
    assert why(Direct(), history=history) is None


def learnt(*behind, candidate=DENSE, problem=PROBLEM, pass_name="forward"):
    history = SpeedHistory()
    for each in behind:
        history.learn_speed(candidate, problem, pass_name, each)
    return history


def test_a_family_far_behind_is_given_up():
    """A family is given up once it was far behind often enough."""
    assert why(DENSE, history=learnt(HOPELESS)) is not None
    assert why(DENSE, history=learnt(BEHIND, BEHIND, BEHIND)) is not None
    assert why(DENSE, history=learnt(BEHIND, BEHIND)) is None


def test_one_close_candidate_saves_a_family():
    """One candidate that was not far behind saves its family."""
    assert why(DENSE, history=learnt(HOPELESS, HOPELESS, 0.9 * BEHIND)) is None


def test_experience_is_of_one_kind():
    """Experience holds for one family, one pass and one kind of problem."""
    other_kind = depthwise((28, 28), 64, (5, 5), batch=8)
    assert why(Direct(), history=learnt(HOPELESS)) is None
    assert why(DENSE, history=learnt(HOPELESS, pass_name="input_gradient")) is None
    assert why(DENSE, history=learnt(HOPELESS, problem=other_kind)) is None
    larger = depthwise((56, 56), 64, (3, 3), batch=8)
    assert why(DENSE, larger, history=learnt(HOPELESS)) is not None
