"""The comparison of a pass's candidates: which run, which are right, how fast."""

from __future__ import annotations

import collections
import dataclasses
import logging
import math
import statistics
import time
from collections.abc import Sequence

import msgspec

from keras_diagwise import backends
from keras_diagwise.algorithms import Algorithm, Native, parse_known
from keras_diagwise.algorithms.algorithm import Device
from keras_diagwise.decision import MISHAPS, Comparison, Outcome, now
from keras_diagwise.durations import duration
from keras_diagwise.environment import Environment
from keras_diagwise.problem import Problem
from keras_diagwise.tuner import verify
from keras_diagwise.tuner.candidates import by_promise, candidates_of, likely_best
from keras_diagwise.tuner.measure import least_ratio
from keras_diagwise.tuner.outcomes import (
    best_of,
    error_of,
    failed_when_timed,
    is_lost,
    judged,
    outcome_of,
    standard_error,
)
from keras_diagwise.tuner.pruning import (
    BEHIND,
    SCOUTS,
    SpeedHistory,
    why_outpredicted,
    why_pruned,
)
from keras_diagwise.tuner.roofline import Roofline
from keras_diagwise.tuner.runner import (
    BudgetSpentError,
    FailedError,
    FirstRun,
    Job,
    PassTask,
    Runner,
)
from keras_diagwise.tuner.subprocess_runner import SubprocessRunner

logger = logging.getLogger("keras_diagwise")

OUTPACED = 2.0
"""Largest ratio of a first run to the best that is still timed further."""

NATIVE_TIMEOUT = 600.0
"""Timeout of native in seconds, whose time must be known; a call can take a minute."""

MIN_TIMEOUT = 15.0
"""Least timeout of a candidate's compilation and run, in seconds; ten times the longest
compilation of the others, if that is more."""

SECONDS_PER_PASS = 0.3

MIN_ROUNDS = 5

CALLS_TO_EXAMINE = 6
"""Calls of each candidate in its first run and its verification, or a few more."""

CALLS_BEFORE = 3
"""Calls of each candidate before its first round: to compile, and to size a sample."""

CLOSE = 1.15
"""Ratio to native within which the timing goes on, for `LONGER` times as long."""

LONGER = 4


class Comparer:
    """Compares the candidates of passes, and learns from each for the next.

    A candidate is refused by its algorithm, pruned by arithmetic or by what was learnt,
    run once and verified, and timed against native if it is among the fastest.

    Args:
        environment: the environment to measure for.
        runner: runs candidates.
        until: the `time.monotonic()` at which to stop.
        timeout: seconds that a candidate may take to compile and run.
        exhaustive: whether to measure also candidates that history or prediction rules
            out.

    Attributes:
        compiles_ahead: whether candidates are compiled in parallel before any is timed.
    """

    def __init__(
        self,
        environment: Environment,
        runner: Runner | SubprocessRunner,
        *,
        until: float,
        timeout: float,
        exhaustive: bool,
    ):
        self.environment = environment
        self._runner = runner
        self._timeout = timeout
        self._until = until
        self._rooflines: dict[str, Roofline | None] = {}
        self._standard_errors: dict[tuple[str, str], verify.Error] = {}
        self._exhaustive = exhaustive
        # On a CPU times of first runs and of parallel compilation are less exact.
        self.compiles_ahead = environment.device_kind != "cpu"
        self._behind = OUTPACED if self.compiles_ahead else BEHIND
        self._history = SpeedHistory(self._behind)
        self._ahead: set[Job] = set()

    def roofline(self, dtype: str) -> Roofline | None:
        """The device's roofline, measured once per dtype, or `None` if that failed, for
        lack of memory, say. Arithmetic then rules out no candidate."""
        if dtype not in self._rooflines:
            mode = self.environment.compiler_mode
            try:
                found = self._in_time(self._runner.roofline, mode, dtype)
            except FailedError as error:
                logger.warning(
                    "keras_diagwise: the roofline of this device could not be measured "
                    "in %s, so more candidates are tried (%s)",
                    dtype,
                    error,
                )
                found = None
            self._rooflines[dtype] = found
        return self._rooflines[dtype]

    def _standard_error(self, dtype: str, pass_name: str) -> verify.Error:
        """The error of the backend's dense convolution, measured once."""
        if (dtype, pass_name) not in self._standard_errors:
            mode = self.environment.compiler_mode
            self._standard_errors[dtype, pass_name] = self._in_time(
                standard_error, self._runner, dtype, pass_name, mode
            )
        return self._standard_errors[dtype, pass_name]

    def compile_ahead(self, problem: Problem, passes: Sequence[str]) -> None:
        """Compiles the candidates of `passes` that are likely to run, in parallel,
        before anything is timed."""
        self._ahead.clear()
        jobs = []
        for pass_name in passes:
            self._standard_error(problem.dtype, pass_name)  # it is another task
            task = PassTask(problem, pass_name, self.environment.compiler_mode)
            predicted = self._predicted(task)
            jobs += self._next_jobs(task, predicted, likely_best(predicted))
        self._compile(jobs)

    def compare(self, problem: Problem, pass_name: str) -> Comparison:
        """Every candidate's outcome: refused, pruned, failed or outpaced ones are
        not timed."""
        task = PassTask(problem, pass_name, self.environment.compiler_mode)
        self._standard_error(problem.dtype, pass_name)  # before anything is compiled
        predicted = self._predicted(task)
        candidates = candidates_of(problem, pass_name)
        outcomes: dict[str, Outcome] = {}
        found: dict[Algorithm, FirstRun] = {}
        for candidate in by_promise(candidates, predicted):
            best = best_of(found) if found else None
            outcome = self._excluded(task, candidate, predicted, best)
            if outcome is None:
                if self.compiles_ahead and (task, candidate) not in self._ahead:
                    self._compile(self._next_jobs(task, predicted, best))
                first_run = self._examine(task, candidate, found)
                outcome = outcome_of(first_run)
                if first_run.failure is None:
                    found[candidate] = first_run
                elif first_run.failure in MISHAPS:
                    predicted.pop(candidate, None)  # so that the next best is tried
            outcomes[str(candidate)] = outcome
        roofline = self.roofline(problem.dtype)
        outcomes = self._timed(task, found, outcomes)
        in_order = {str(each): outcomes[str(each)] for each in candidates}
        least = None if roofline is None else roofline.seconds(problem)
        return Comparison(in_order, now(), least)

    def verified(
        self, problem: Problem, pass_name: str, known: Comparison
    ) -> Comparison:
        """A comparison with a failure for every candidate that fails or computes wrong
        numbers here. Nothing is timed. Native is not tried: a model runs it anyway."""
        task = PassTask(problem, pass_name, self.environment.compiler_mode)
        self._standard_error(problem.dtype, pass_name)
        outcomes = dict(known.outcomes)
        for name in known.seconds:
            candidate = parse_known(name)
            if isinstance(candidate, Native):
                continue
            if candidate is None:  # another version's, which can't be verified here
                del outcomes[name]
                continue
            first_run = self._examine(task, candidate, {})
            if first_run.failure is not None:
                reason = f"when it was imported: {first_run.reason}"
                failed = dataclasses.replace(first_run, reason=reason)
                outcomes[name] = outcome_of(failed)
        return msgspec.structs.replace(known, outcomes=outcomes)

    def _compile(self, jobs: Sequence[Job]) -> None:
        self._ahead.update(jobs)
        if jobs:
            self._in_time(self._runner.compile, jobs)

    def _next_jobs(self, task, predicted, best) -> list[Job]:
        """The next candidates to compile of a pass whose fastest takes `best` seconds:
        all that are not excluded, but only a few at a time of a family that may turn
        out to be hopeless."""
        jobs: list[Job] = []
        of_family: collections.Counter[str] = collections.Counter()
        for candidate in candidates_of(task.problem, task.pass_name):
            job = task, candidate
            excluded = self._excluded(task, candidate, predicted, best)
            if excluded is not None or job in self._ahead:
                continue
            of_family[candidate.family] += 1
            is_known = candidate in predicted or self._history.is_enough(
                candidate, task.problem, task.pass_name
            )
            if is_known or of_family[candidate.family] <= SCOUTS:
                jobs.append(job)
        return jobs

    def _predicted(self, task: PassTask) -> dict[Algorithm, float]:
        """The predicted seconds of candidates, where they can be predicted."""
        device = self._gpu(task.problem.dtype)
        if device is None:
            return {}
        found = {
            candidate: candidate.predicted_seconds(task.problem, task.pass_name, device)
            for candidate in candidates_of(task.problem, task.pass_name)
        }
        return {each: seconds for each, seconds in found.items() if seconds is not None}

    def _gpu(self, dtype: str) -> Device | None:
        """The NVIDIA GPU to measure on, or `None`."""
        if self.environment.device_kind != "gpu":
            return None
        capability = backends.active.compute_capability()
        roofline = None if capability is None else self.roofline(dtype)
        if roofline is None:
            return None
        speed = roofline.bytes_per_second
        return Device(speed, self.environment.cores, capability)

    def _excluded(self, task, candidate, predicted, best) -> Outcome | None:
        """The outcome of a candidate that is not run.

        Args:
            task: the pass.
            candidate: the candidate.
            predicted: the predicted seconds of candidates, where there are any.
            best: seconds of the fastest so far, or `None` if none has run.
        """
        refusal = candidate.refusal(task.problem)
        refusal = refusal or candidate.redundancy(task.compiler_mode)
        if refusal:
            return Outcome(failure="refused", reason=refusal)
        reason = self._why_pruned(task, candidate, predicted, best)
        return Outcome(failure="pruned", reason=reason) if reason else None

    def _why_pruned(self, task, candidate, predicted, best) -> str | None:
        reason = None
        if candidate in predicted and not self._exhaustive:
            seconds, least = predicted[candidate], min(predicted.values())
            reason = why_outpredicted(seconds, least)
        if reason or isinstance(candidate, Native) or best is None:
            return reason
        return why_pruned(
            candidate,
            task.problem,
            task.pass_name,
            best=best,
            roofline=self.roofline(task.problem.dtype),
            history=None if self._exhaustive else self._history,
        )

    def _examine(self, task, candidate, found) -> FirstRun:
        """A first run, in which wrong numbers are a failure."""
        best = best_of(found) if found else float("inf")
        others = (each.compile_seconds for each in found.values())
        timeout = max(MIN_TIMEOUT, 10 * max(others, default=float("inf")))
        timeout = min(self._timeout, timeout)
        if isinstance(candidate, Native):
            timeout = NATIVE_TIMEOUT
        elif math.isfinite(best):
            timeout += CALLS_TO_EXAMINE * best
        first_run = self._in_time(
            self._runner.examine,
            task,
            candidate,
            float("inf") if isinstance(candidate, Native) else self._behind * best,
            timeout,
        )
        if first_run.failure == "timeout":
            self._learn(task, candidate, timeout / best)
        if first_run.seconds is None:
            return first_run
        compiling = first_run.compile_seconds
        self._history.learn_compilation(candidate, task.problem, compiling)
        self._learn(task, candidate, first_run.seconds / best)
        if first_run.error is None:
            return first_run
        standard = self._standard_error(task.problem.dtype, task.pass_name)
        return judged(first_run, candidate, standard)

    def _learn(self, task, candidate, behind: float) -> None:
        if behind > 0:
            self._history.learn_speed(candidate, task.problem, task.pass_name, behind)

    def _timed(self, task, found, outcomes) -> dict[str, Outcome]:
        """The outcomes, with times of the candidates worth timing."""
        if not found:
            return outcomes
        best = best_of(found)
        finalists = []
        for candidate, first_run in found.items():
            if isinstance(candidate, Native) and is_lost(first_run, best):
                outcomes[str(candidate)] = Outcome(
                    first_run.seconds, error_of(first_run)
                )
            elif first_run.seconds <= OUTPACED * best or isinstance(candidate, Native):
                finalists.append(candidate)
            else:
                reason = (
                    f"{duration(first_run.seconds)} in its first run, and the best "
                    f"{duration(best)}"
                )
                outcomes[str(candidate)] = Outcome(
                    error=error_of(first_run), failure="outpaced", reason=reason
                )
        samples, failed = self._samples_or_failures(task, found, finalists)
        outcomes |= failed
        native = samples.get(Native())
        for candidate, taken in samples.items():
            outcomes[str(candidate)] = Outcome(
                seconds=statistics.median(taken),
                error=error_of(found[candidate]),
                gain=None
                if native is None or candidate == Native()
                else least_ratio(native, taken[: len(native)]),
            )
        return outcomes

    def _samples_or_failures(
        self, task, found, finalists
    ) -> tuple[dict[Algorithm, list[float]], dict[str, Outcome]]:
        """Times of the finalists, except those that fail while they are timed: after a
        failure each is tried alone."""
        try:
            return self._samples(task, found, finalists), {}
        except FailedError:
            alone = {
                each: self._failure_alone(task, each, found[each].seconds)
                for each in finalists
            }
        failed = {str(each): failure for each, failure in alone.items() if failure}
        rest = [each for each, failure in alone.items() if not failure]
        try:
            return self._samples(task, found, rest) if rest else {}, failed
        except FailedError as error:
            return {}, failed | {str(each): failed_when_timed(error) for each in rest}

    def _failure_alone(self, task, candidate, seconds: float) -> Outcome | None:
        """The failure of a candidate timed alone, or `None`, given the time of a
        call."""
        expected = (1 + CALLS_BEFORE) * seconds
        try:
            self._in_time(self._runner.time, task, [candidate], 0.0, 1, expected)
        except FailedError as error:
            return failed_when_timed(error)
        return None

    def _samples(self, task, found, finalists) -> dict[Algorithm, list[float]]:
        """Times of the finalists, measured longer where native and the best are close.
        Where native is far behind and took most of the time, the others go on without
        it."""

        def measured(candidates, seconds):
            calls = MIN_ROUNDS + CALLS_BEFORE
            expected = seconds + calls * sum(found[each].seconds for each in candidates)
            return self._in_time(
                self._runner.time, task, candidates, seconds, MIN_ROUNDS, expected
            )

        samples = measured(finalists, SECONDS_PER_PASS)
        medians = {each: statistics.median(taken) for each, taken in samples.items()}
        native = medians.pop(Native(), None)
        if not native or not medians:
            return samples
        ahead = native / min(medians.values())
        more = {}
        if 1 / CLOSE < ahead < CLOSE:
            more = measured(finalists, LONGER * SECONDS_PER_PASS)
        elif ahead > OUTPACED and len(medians) > 1:
            more = measured(list(medians), SECONDS_PER_PASS)
        return {each: taken + more.get(each, []) for each, taken in samples.items()}

    def _in_time(self, work, *arguments):
        """The result of `work`, unless the time is over."""
        if time.monotonic() >= self._until:
            raise BudgetSpentError
        try:
            return work(*arguments)
        except TimeoutError:
            raise BudgetSpentError from None
