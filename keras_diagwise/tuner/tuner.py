"""The tuner: measures a problem's candidates, verifies them, and keeps a decision."""

from __future__ import annotations

import dataclasses
import datetime
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from keras_diagwise.algorithms import ALGORITHMS, Algorithm, Native
from keras_diagwise.planning.decision import Comparison, Decision, Outcome
from keras_diagwise.planning.environment import Environment
from keras_diagwise.planning.store import Store
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.tuner import verify
from keras_diagwise.tuner.isolated import ChildDiedError, IsolatedWorkbench
from keras_diagwise.tuner.limits import Limits
from keras_diagwise.tuner.prune import BEHIND, Experience, why_pruned
from keras_diagwise.tuner.workbench import Finding, Task

OUTPACED = 2.0
"""How far behind the best a candidate's first run may be to be timed further."""

LEAST_PATIENCE = 15.0
"""Seconds that a candidate may take to compile and run, however quick the others
were; ten times as long as they, if that is more."""

SECONDS_PER_PASS = 0.3
LEAST_ROUNDS = 5
CLOSE = 1.15
"""Times of native within which the timing goes on, for so many times as long: """
LONGER = 4


class BudgetSpentError(Exception):
    """The time given to the tuner is over."""


class Tuner:
    """Measures problems in one environment and writes decisions into a store.

    Args:
        store: where decisions are kept, each pass as soon as it is known.
        environment: what to measure for; that of a call now if none is given.
        until: the `time.monotonic()` at which to stop.
        patience: seconds that a candidate may take to compile and run.
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
        self._workbench = IsolatedWorkbench(patience, until)
        self._patience = patience
        self._until = until
        self._experience = Experience()
        self._limits: dict[str, Limits] = {}
        self._exhaustive = exhaustive

    def close(self) -> None:
        """Ends the child process; it starts again if it is needed again."""
        self._workbench.close()

    def known(self, problem: Problem) -> Decision:
        """What the store holds for a problem in the tuner's environment."""
        return self.store.get(self.environment, problem) or Decision(problem, {})

    def limits(self, dtype: str) -> Limits:
        """How fast the device copies and multiplies, measured once."""
        if dtype not in self._limits:
            mode = self.environment.compiler_mode
            self._limits[dtype] = self._in_time(self._workbench.limits, mode, dtype)
        return self._limits[dtype]

    def tune(
        self,
        problem: Problem,
        passes: Sequence[str] = PASSES,
        told: Callable[[str], None] = lambda pass_name: None,
    ) -> Decision:
        """The decision for a problem: of what the store holds already, nothing is
        measured again.

        Args:
            problem: a problem whose batch and spatial shape are known.
            passes: those that are asked for.
            told: called with the name of each pass when it is decided.

        Raises:
            BudgetSpentError: if the time is over. What was decided is in the store.
        """
        if problem.batch in (None, 0) or not problem.has_static_spatial_shape:
            raise ValueError(
                "A problem must have a known batch and spatial shape to be measured. "
                f"Received: problem={problem}"
            )
        decision = self.known(problem)
        for pass_name in passes:
            if not is_decided(decision, pass_name):
                comparison = self._compare(problem, pass_name)
                decision |= Decision(problem, {pass_name: comparison})
                self.store.put(self.environment, decision)
                self.measured += 1
            told(pass_name)
        return decision

    def _compare(self, problem: Problem, pass_name: str) -> Comparison:
        """Every candidate's outcome: refused, pruned, failed or outpaced ones are
        not timed."""
        task = Task(problem, pass_name, self.environment.compiler_mode)
        outcomes: dict[str, Outcome] = {}
        found: dict[Algorithm, Finding] = {}
        for candidate in candidates_of(problem, pass_name):
            outcome = self._excluded(task, candidate, found)
            if outcome is None:
                finding = self._examine(task, candidate, found)
                outcome = Outcome(
                    error=finding.error, failure=finding.failure, reason=finding.reason
                )
                if finding.failure is None:
                    found[candidate] = finding
            outcomes[str(candidate)] = outcome
        least = self.limits(problem.dtype).least_seconds(problem)
        return Comparison(self._timed(task, found, outcomes), now(), least)

    def _excluded(self, task, candidate, found) -> Outcome | None:
        """The outcome of a candidate that is not run."""
        refusal = candidate.refusal(task.problem)
        if refusal:
            return Outcome(failure="refused", reason=refusal)
        if isinstance(candidate, Native) or not found:
            return None
        reason = why_pruned(
            candidate,
            task.problem,
            task.pass_name,
            best=best_of(found),
            limits=self.limits(task.problem.dtype),
            experience=None if self._exhaustive else self._experience,
        )
        return Outcome(failure="pruned", reason=reason) if reason else None

    def _examine(self, task, candidate, found) -> Finding:
        """A finding, with numbers that are wrong as a failure."""
        best = best_of(found) if found else float("inf")
        others = (each.compile_seconds for each in found.values())
        patience = max(LEAST_PATIENCE, 10 * max(others, default=float("inf")))
        finding = self._in_time(
            self._workbench.examine,
            task,
            candidate,
            float("inf") if isinstance(candidate, Native) else BEHIND * best,
            min(self._patience, patience),
        )
        if finding.failure == "timeout":
            self._learn(task, candidate, patience / best)
        if finding.seconds is None:
            return finding
        compiling = finding.compile_seconds
        self._experience.learn_compilation(candidate, task.problem, compiling)
        self._learn(task, candidate, finding.seconds / best)
        if finding.error is None:
            return finding
        allowed = verify.allowed_error(task.problem, task.pass_name)
        if isinstance(candidate, Native):
            allowed = verify.allowed_native_error(task.problem, task.pass_name)
        elif Native() in found:
            allowed = max(allowed, 2 * found[Native()].error)
        return judged(finding, allowed)

    def _learn(self, task, candidate, behind: float) -> None:
        if behind > 0:
            self._experience.learn_speed(
                candidate, task.problem, task.pass_name, behind
            )

    def _timed(self, task, found, outcomes) -> dict[str, Outcome]:
        """The outcomes, with the times of those that are worth timing."""
        if not found:
            return outcomes
        best = best_of(found)
        finalists = []
        for candidate, finding in found.items():
            if finding.seconds <= OUTPACED * best or isinstance(candidate, Native):
                finalists.append(candidate)
                continue
            outcomes[str(candidate)] = Outcome(
                error=finding.error,
                failure="outpaced",
                reason=f"{1e3 * finding.seconds:.3g} ms in its first run, and the best "
                f"{1e3 * best:.3g} ms",
            )
        try:
            samples = self._samples(task, finalists)
        except (ChildDiedError, TimeoutError) as error:
            # What ran before does no longer: which of them it was is not known.
            reason = f"while it was timed: {error}"
            return {
                **outcomes,
                **{str(c): Outcome(failure="crash", reason=reason) for c in finalists},
            }
        native = samples.get(Native())
        for candidate in finalists:
            taken = samples[candidate]
            outcomes[str(candidate)] = Outcome(
                seconds=statistics.median(taken),
                error=found[candidate].error,
                gain=None
                if native is None or candidate == Native()
                else least_ratio(native, taken),
            )
        return outcomes

    def _samples(self, task, finalists) -> dict[Algorithm, list[float]]:
        """Times of the finalists, longer where native and the best are close."""

        def measured(seconds):
            return self._in_time(
                self._workbench.time, task, finalists, seconds, LEAST_ROUNDS
            )

        samples = measured(SECONDS_PER_PASS)
        medians = {each: statistics.median(taken) for each, taken in samples.items()}
        native = medians.get(Native())
        others = [taken for each, taken in medians.items() if each != Native()]
        if native and others and 1 / CLOSE < native / min(others) < CLOSE:
            more = measured(LONGER * SECONDS_PER_PASS)
            samples = {each: taken + more[each] for each, taken in samples.items()}
        return samples

    def _in_time(self, work, *arguments):
        """What `work` gives, unless the time is over."""
        if time.monotonic() >= self._until:
            raise BudgetSpentError
        try:
            return work(*arguments)
        except TimeoutError:
            if time.monotonic() >= self._until:
                raise BudgetSpentError from None
            raise


def candidates_of(problem: Problem, pass_name: str) -> list[Algorithm]:
    """Every candidate, native first, each algorithm's most promising before the
    others."""
    return [
        candidate
        for algorithm in ALGORITHMS.values()
        for candidate in algorithm.candidates(problem, pass_name)
    ]


def best_of(found: Mapping[Algorithm, Finding]) -> float:
    """The seconds of the fastest."""
    return min(each.seconds for each in found.values() if each.seconds is not None)


def is_decided(decision: Decision, pass_name: str) -> bool:
    """Whether every candidate of a pass has an outcome."""
    comparison = decision.passes.get(pass_name)
    if comparison is None:
        return False
    names = {str(each) for each in candidates_of(decision.problem, pass_name)}
    return names <= set(comparison.outcomes)


def judged(finding: Finding, allowed: float) -> Finding:
    """A finding whose error is a failure if it is not allowed."""
    error = finding.error
    if error is None or error <= allowed:
        return finding
    if error != error or error == float("inf"):
        reason = "a number is NaN or infinite"
        return Finding(failure="not finite", reason=reason)
    return dataclasses.replace(
        finding,
        failure="wrong numbers",
        reason=f"off by {error:.2g} of the root mean square, and {allowed:.2g} allowed",
    )


def least_ratio(native: Sequence[float], taken: Sequence[float]) -> float:
    """The 95 % bootstrap bound below the median of native's time over another's,
    round by round."""
    ratios = [one / other for one, other in zip(native, taken, strict=True)]
    draw = random.Random(0)
    resampled = sorted(
        statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(400)
    )
    return resampled[len(resampled) // 20]


def now() -> str:
    """The time, in UTC, as ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
