"""The tuner: verifies and measures a problem's candidates, and stores a decision."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import logging
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from keras_diagwise import backends
from keras_diagwise.algorithms import ALGORITHMS, Algorithm, Native, parse
from keras_diagwise.algorithms.algorithm import Device
from keras_diagwise.decision import (
    MAX_NUMBER,
    MISHAPS,
    SURE_FAILURES,
    Comparison,
    Decision,
    Outcome,
)
from keras_diagwise.environment import Environment
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.storage.leases import host
from keras_diagwise.storage.locations import digest_of
from keras_diagwise.storage.store import Store
from keras_diagwise.tuner import verify
from keras_diagwise.tuner.measure import lower_bound
from keras_diagwise.tuner.pruning import (
    BEHIND,
    PREDICTED_BEHIND,
    SCOUTS,
    SpeedHistory,
    why_outpredicted,
    why_pruned,
)
from keras_diagwise.tuner.roofline import Roofline
from keras_diagwise.tuner.runner import (
    FailedError,
    FirstRun,
    Job,
    PassTask,
    Runner,
)
from keras_diagwise.tuner.subprocess_runner import SubprocessRunner

OUTPACED = 2.0
"""Largest ratio of a first run to the best that is still timed further."""

NATIVE_PATIENCE = 600.0
"""Timeout of native in seconds: a call can take a minute, and must be known."""

MIN_PATIENCE = 15.0
"""Least timeout of a candidate's compilation and run, in seconds; ten times the longest
compilation of the others, if that is more."""

SECONDS_PER_PASS = 0.3
MIN_ROUNDS = 5
CALLS_BEFORE = 3
"""Calls of each candidate before its first round: to compile, and to size a sample."""

LOST = 20.0
SLOW = 1.0
"""A native slower than `SLOW` seconds and `LOST` times the best is not timed further:
the time of its first runs is reported, and nothing depends on more."""

CLOSE = 1.15
"""Ratio to native within which the timing goes on, for `LONGER` times as long."""
LONGER = 4

RESAMPLES = 400

SECONDS_BETWEEN_LOOKS = 0.5
"""Polling interval while another worker measures."""

MEASURING = threading.Lock()
"""Held while a pass is measured, so that no other thread of this process disturbs it or
measures it too."""


logger = logging.getLogger("keras_diagwise")


class BudgetSpentError(Exception):
    """The tuner's time budget is spent."""


class Tuner:
    """Measures problems in one environment and writes decisions into a store.

    Args:
        store: where decisions are stored, each pass as soon as it is known.
        environment: what to measure for; the current one if not given.
        until: the `time.monotonic()` at which to stop.
        patience: seconds that a candidate may take to compile and run.
        exhaustive: whether to measure also candidates that history or prediction rules
            out.

    Attributes:
        measured: number of passes measured so far.
        awaited: the problems left to another worker, or to when the device is free.
    """

    def __init__(
        self,
        store: Store,
        environment: Environment | None = None,
        *,
        until: float = float("inf"),
        patience: float = 60.0,
        exhaustive: bool = False,
    ):
        self.store = store
        self.environment = environment or Environment.current()
        self.measured = 0
        self.awaited: set[Problem] = set()
        self._leases = store.leases(self.environment)
        self._runner = SubprocessRunner(patience, until)
        self._patience = patience
        self._until = until
        self._rooflines: dict[str, Roofline] = {}
        self._standard_errors: dict[tuple[str, str], verify.Error] = {}
        self._exhaustive = exhaustive
        # On a CPU times of first runs and of parallel compilation are less exact.
        self._compiles_ahead = self.environment.device_kind != "cpu"
        self._behind = OUTPACED if self._compiles_ahead else BEHIND
        self._history = SpeedHistory(self._behind)
        self._ahead: set[Job] = set()

    def close(self) -> None:
        """Ends the child process; the next measurement starts another."""
        self._runner.close()

    def known(self, problem: Problem) -> Decision:
        """The stored decision for a problem in this environment, or an empty one."""
        return self.store.get(self.environment, problem) or Decision(problem, {})

    def roofline(self, dtype: str) -> Roofline:
        """The device's roofline, measured once per dtype."""
        if dtype not in self._rooflines:
            mode = self.environment.compiler_mode
            self._rooflines[dtype] = self._in_time(self._runner.roofline, mode, dtype)
        return self._rooflines[dtype]

    def tune(
        self,
        problem: Problem,
        passes: Sequence[str] = PASSES,
        told: Callable[[str], None] = lambda pass_name: None,
    ) -> Decision:
        """The decision for a problem: passes that the store has are not measured again,
        and those that another worker measures are waited for.

        Args:
            problem: a problem whose batch and spatial shape are known.
            passes: the passes to decide.
            told: called with the name of each pass when it is decided.

        Raises:
            BudgetSpentError: if the time is over. Decided passes are in the store.
        """
        if problem.batch in (None, 0) or not problem.has_static_spatial_shape:
            raise ValueError(
                "A problem must have a known batch and spatial shape to be measured. "
                f"Received: problem={problem}"
            )
        while True:
            decision = self.tune_unless_leased(problem, passes, told)
            if decision is not None:
                return decision
            self.pause()

    def tune_unless_leased(
        self,
        problem: Problem,
        passes: Sequence[str] = PASSES,
        told: Callable[[str], None] = lambda pass_name: None,
    ) -> Decision | None:
        """`tune` without waiting: `None` if another worker measures the problem, or
        another process measures on the device."""
        decision = self.known(problem)
        if all(is_decided(decision, name) for name in passes):
            for pass_name in passes:
                told(pass_name)
            return decision
        with self.leased(problem.digest) as is_ours:
            if is_ours:
                with self.device() as is_free:
                    if is_free:
                        return self._tuned(problem, passes, told)
        self.awaited.add(problem)
        return None

    def leased(self, what: str) -> AbstractContextManager[bool]:
        """The lease on a task that one worker does for all, see `Leases.held`."""
        return self._leases.held(what)

    def device(self) -> AbstractContextManager[bool]:
        """The lease on the device, where two measurements would disturb each other."""
        return self._leases.held(digest_of(host(), backends.active.device_place()))

    def pause(self) -> None:
        """Waits a moment for another worker.

        Raises:
            BudgetSpentError: if the time is over.
        """
        left = self._until - time.monotonic()
        if left <= 0:
            raise BudgetSpentError
        time.sleep(min(left, SECONDS_BETWEEN_LOOKS))

    def _tuned(self, problem, passes, told) -> Decision:
        decision = self.known(problem)
        missing = [each for each in passes if not is_decided(decision, each)]
        if missing and self._compiles_ahead:
            with self._alone():
                self._compile_ahead(problem, missing)
        for pass_name in passes:
            if pass_name in missing:
                with self._alone():
                    decision |= self._decided(problem, pass_name)
            told(pass_name)
        return decision

    def _compile_ahead(self, problem: Problem, passes: Sequence[str]) -> None:
        """Compiles the candidates of `passes` that are likely to run, in parallel,
        before anything is timed."""
        self._ahead.clear()
        jobs = []
        for pass_name in passes:
            self.standard_error(problem.dtype, pass_name)  # it is another task
            task = PassTask(problem, pass_name, self.environment.compiler_mode)
            predicted = self._predicted(task)
            jobs += self._next_jobs(task, predicted, likely_best(predicted))
        self._compile(jobs)

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
        if capability is None:
            return None
        speed = self.roofline(dtype).bytes_per_second
        return Device(speed, self.environment.cores, capability)

    def _decided(self, problem: Problem, pass_name: str) -> Decision:
        """The decision for a pass, measured unless another thread or process has
        stored it meanwhile."""
        decision = self.known(problem)
        if is_decided(decision, pass_name):
            return decision
        comparison = self._compare(problem, pass_name)
        native = comparison.outcomes["native"]
        if native.failure not in (None, *SURE_FAILURES):
            # It runs in the model: what it lacked here is memory or time.
            logger.warning(
                "keras_diagwise: %s of %s is left undecided, since native failed there "
                "(%s: %s). Tune again while the device has nothing else to do, by "
                "`keras-diagwise tune` in a process of its own.",
                pass_name,
                problem,
                native.failure,
                native.reason,
            )
            return decision
        decision |= Decision(problem, {pass_name: comparison})
        self.store.put(self.environment, decision)
        self.measured += 1
        return decision

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Excludes other measurements in this process meanwhile."""
        left = min(self._until - time.monotonic(), threading.TIMEOUT_MAX)
        if not MEASURING.acquire(timeout=max(0.0, left)):
            raise BudgetSpentError
        try:
            yield
        finally:
            MEASURING.release()

    def _compare(self, problem: Problem, pass_name: str) -> Comparison:
        """Every candidate's outcome: refused, pruned, failed or outpaced ones are
        not timed."""
        task = PassTask(problem, pass_name, self.environment.compiler_mode)
        self.standard_error(problem.dtype, pass_name)  # before anything is compiled
        predicted = self._predicted(task)
        candidates = candidates_of(problem, pass_name)
        outcomes: dict[str, Outcome] = {}
        found: dict[Algorithm, FirstRun] = {}
        for candidate in by_promise(candidates, predicted):
            best = best_of(found) if found else None
            outcome = self._excluded(task, candidate, predicted, best)
            if outcome is None:
                if self._compiles_ahead and (task, candidate) not in self._ahead:
                    self._compile(self._next_jobs(task, predicted, best))
                first_run = self._examine(task, candidate, found)
                outcome = outcome_of(first_run)
                if first_run.failure is None:
                    found[candidate] = first_run
                elif first_run.failure in MISHAPS:
                    predicted.pop(candidate, None)  # so that the next best is tried
            outcomes[str(candidate)] = outcome
        roofline = self.roofline(problem.dtype).seconds(problem)
        outcomes = self._timed(task, found, outcomes)
        in_order = {str(each): outcomes[str(each)] for each in candidates}
        return Comparison(in_order, now(), roofline)

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
        patience = max(MIN_PATIENCE, 10 * max(others, default=float("inf")))
        patience = min(self._patience, patience)
        if isinstance(candidate, Native):
            patience = NATIVE_PATIENCE
        first_run = self._in_time(
            self._runner.examine,
            task,
            candidate,
            float("inf") if isinstance(candidate, Native) else self._behind * best,
            patience,
        )
        if first_run.failure == "timeout":
            self._learn(task, candidate, patience / best)
        if first_run.seconds is None:
            return first_run
        compiling = first_run.compile_seconds
        self._history.learn_compilation(candidate, task.problem, compiling)
        self._learn(task, candidate, first_run.seconds / best)
        if first_run.error is None:
            return first_run
        standard = self.standard_error(task.problem.dtype, task.pass_name)
        return judged(first_run, candidate, standard)

    def verified(self, decision: Decision) -> Decision:
        """The decision with a failure for every candidate that fails or computes wrong
        numbers here. Nothing is timed. Native is not tried: a model runs it anyway."""
        passes = {
            name: self._verified(decision.problem, name, each)
            for name, each in decision.passes.items()
        }
        return dataclasses.replace(decision, passes=passes)

    def _verified(self, problem, pass_name, comparison: Comparison) -> Comparison:
        task = PassTask(problem, pass_name, self.environment.compiler_mode)
        self.standard_error(problem.dtype, pass_name)
        outcomes = dict(comparison.outcomes)
        for name in comparison.seconds:
            candidate = parse(name)
            if isinstance(candidate, Native):
                continue
            with self._alone():
                first_run = self._examine(task, candidate, {})
            if first_run.failure is not None:
                reason = f"when it was imported: {first_run.reason}"
                outcomes[name] = outcome_of(
                    dataclasses.replace(first_run, reason=reason)
                )
        return dataclasses.replace(comparison, outcomes=outcomes)

    def standard_error(self, dtype: str, pass_name: str) -> verify.Error:
        """The error of the backend's dense convolution, measured once."""
        if (dtype, pass_name) not in self._standard_errors:
            mode = self.environment.compiler_mode
            self._standard_errors[dtype, pass_name] = self._in_time(
                standard_error, self._runner, dtype, pass_name, mode
            )
        return self._standard_errors[dtype, pass_name]

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
                    f"{1e3 * first_run.seconds:.3g} ms in its first run, and the best "
                    f"{1e3 * best:.3g} ms"
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
            alone = {each: self._failure_alone(task, each) for each in finalists}
        failed = {str(each): failure for each, failure in alone.items() if failure}
        rest = [each for each, failure in alone.items() if not failure]
        try:
            return self._samples(task, found, rest) if rest else {}, failed
        except FailedError as error:
            return {}, failed | {str(each): failed_when_timed(error) for each in rest}

    def _failure_alone(self, task, candidate) -> Outcome | None:
        """The failure of a candidate timed alone, or `None`."""
        try:
            self._in_time(self._runner.time, task, [candidate], 0.0, 1)
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


def candidates_of(problem: Problem, pass_name: str) -> list[Algorithm]:
    """Every candidate, native first, each algorithm's most promising ones before its
    others."""
    return [
        candidate
        for algorithm in ALGORITHMS.values()
        for candidate in algorithm.candidates(problem, pass_name)
    ]


def by_promise(
    candidates: Sequence[Algorithm], predicted: Mapping[Algorithm, float]
) -> list[Algorithm]:
    """The candidates: native, then those with a predicted time, fastest first. The
    sooner a fast one is known, the fewer others are run."""

    def order(candidate):
        if isinstance(candidate, Native):
            return 0.0
        return predicted.get(candidate, math.inf)

    return sorted(candidates, key=order)


def likely_best(predicted: Mapping[Algorithm, float]) -> float:
    """An upper estimate of the fastest candidate's seconds, from the predictions."""
    return PREDICTED_BEHIND * min(predicted.values(), default=math.inf)


def best_of(found: Mapping[Algorithm, FirstRun]) -> float:
    """The seconds of the fastest candidate."""
    return min(each.seconds for each in found.values() if each.seconds is not None)


def is_lost(first_run: FirstRun, best: float) -> bool:
    """Whether native's first runs were too slow to be worth more."""
    assert first_run.seconds is not None
    return first_run.seconds > max(SLOW, LOST * best)


def error_of(first_run: FirstRun) -> float | None:
    """The error of a first run, as an outcome keeps it."""
    return None if first_run.error is None else first_run.error.relative


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


def is_decided(decision: Decision, pass_name: str) -> bool:
    """Whether every current candidate of a pass has a valid outcome."""
    comparison = decision.passes.get(pass_name)
    if comparison is None or comparison.is_outdated:
        return False
    names = {str(each) for each in candidates_of(decision.problem, pass_name)}
    return names <= set(comparison.outcomes)


def failed_when_timed(error: FailedError) -> Outcome:
    """The outcome of a candidate that was verified, but failed while it was timed."""
    reason = f"while it was timed: {error.first_run.reason}"
    return Outcome(failure=error.first_run.failure, reason=reason)


def standard_error(
    runner: Runner | SubprocessRunner, dtype: str, pass_name: str, mode: str
) -> verify.Error:
    """The error of the backend's dense convolution; 0 if it can't be measured."""
    task = PassTask(verify.standard_problem(dtype), pass_name, mode)
    return runner.examine(task, Native()).error or verify.Error(0.0, 0.0, 0.0)


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


def least_ratio(native: Sequence[float], taken: Sequence[float]) -> float:
    """The lower 95 % bootstrap bound of the median ratio of native's time to another's,
    round by round."""
    ratios = [one / other for one, other in zip(native, taken, strict=True)]
    return lower_bound(ratios, RESAMPLES)


def now() -> str:
    """The time, in UTC, as ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
