"""Outcomes: what became of a candidate, from its runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from keras_diagwise.algorithms import Algorithm, Native
from keras_diagwise.decision import MAX_NUMBER, Outcome
from keras_diagwise.tuner import verify
from keras_diagwise.tuner.runner import FailedError, FirstRun, PassTask, Runner
from keras_diagwise.tuner.subprocess_runner import SubprocessRunner

LOST = 20.0
SLOW = 1.0
"""A native slower than `SLOW` seconds and `LOST` times the best is not timed further:
the time of its first runs is reported, and nothing depends on more."""


def outcome_of(first_run: FirstRun) -> Outcome:
    """The outcome of a candidate from its first run."""
    is_wrong = first_run.failure == "wrong numbers" and first_run.error is not None
    return Outcome(
        error=error_of(first_run),
        failure=first_run.failure,
        reason=first_run.reason,
        excess=min(first_run.error.excess, MAX_NUMBER)
        if is_wrong and first_run.error
        else None,
    )


def error_of(first_run: FirstRun) -> float | None:
    """The error of a first run, as an outcome keeps it: at most `MAX_NUMBER`."""
    if first_run.error is None:
        return None
    return min(first_run.error.relative, MAX_NUMBER)


def failed_when_timed(error: FailedError) -> Outcome:
    """The outcome of a candidate that was verified, but failed while it was timed."""
    reason = f"while it was timed: {error.first_run.reason}"
    return Outcome(failure=error.first_run.failure, reason=reason)


def best_of(found: Mapping[Algorithm, FirstRun]) -> float:
    """The seconds of the fastest candidate."""
    return min(each.seconds for each in found.values() if each.seconds is not None)


def is_lost(first_run: FirstRun, best: float) -> bool:
    """Whether native's first runs were too slow to be worth more."""
    assert first_run.seconds is not None
    return first_run.seconds > max(SLOW, LOST * best)


def judged(
    first_run: FirstRun, candidate: Algorithm, standard: verify.Error
) -> FirstRun:
    """A first run, failed if its error is not allowed, see `verify`."""
    error = first_run.error
    if error is None:
        return first_run
    is_native = isinstance(candidate, Native)
    excess = error.excess_of_stock if is_native else error.excess
    if excess <= verify.most_excess(standard):
        return first_run
    if not math.isfinite(error.relative):
        return FirstRun(failure="not finite", reason="a number is NaN or infinite")
    return dataclasses.replace(
        first_run,
        failure="wrong numbers",
        reason=f"off by {excess:.3g} times what rounding explains, and by "
        f"{error.relative:.2g} of the root mean square",
    )


def standard_error(
    runner: Runner | SubprocessRunner, dtype: str, pass_name: str, mode: str
) -> verify.Error:
    """The error of the backend's dense convolution; 0 if it can't be measured."""
    task = PassTask(verify.standard_problem(dtype), pass_name, mode)
    return runner.examine(task, Native()).error or verify.Error(0.0, 0.0, 0.0)
