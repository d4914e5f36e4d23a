"""The runner: compiles, verifies and times the candidates of one pass.

It runs in a child process where possible, see `subprocess_runner`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from keras_diagwise import backends
from keras_diagwise._terminal import short
from keras_diagwise.algorithms import Algorithm
from keras_diagwise.durations import duration
from keras_diagwise.environment import usable_cores
from keras_diagwise.plan import Plan
from keras_diagwise.planning.planned_convolution import PlannedConvolution
from keras_diagwise.problem import Problem
from keras_diagwise.tuner import verify
from keras_diagwise.tuner.float64_passes import operand_shapes
from keras_diagwise.tuner.measure import (
    TimingPolicy,
    interleaved,
    seconds_of,
    timing_policy,
)
from keras_diagwise.tuner.roofline import Roofline, measure_roofline

OUT_OF_MEMORY = (
    "resource_exhausted",
    "resourceexhausted",
    "out of memory",
    "oom when",
    "alloc_failed",
    "cudnn_status_not_initialized",
    "library initialization failed",
)
"""Texts of the backends' errors, which share no exception class."""

MAX_LETTERS = 300
"""Longest reason of a failure kept."""


class BudgetSpentError(Exception):
    """The tuner's time budget is spent."""


@dataclasses.dataclass(frozen=True)
class PassTask:
    """One pass of a problem, compiled as in a model."""

    problem: Problem
    pass_name: str
    compiler_mode: str


@dataclasses.dataclass(frozen=True)
class FirstRun:
    """The result of a candidate's first run.

    Attributes:
        seconds: its approximate time: the shorter of two calls, or of one if that was
            much slower than the best so far.
        error: its error against float64.
        compile_seconds: time until the first call was done, less one call.
        failure: one of `FAILURES`, or `None`.
        reason: the failure, in words.
    """

    seconds: float | None = None
    error: verify.Error | None = None
    compile_seconds: float | None = None
    failure: str | None = None
    reason: str = ""


class FailedError(Exception):
    """A runner could not do what it was asked for.

    Args:
        failure: one of `FAILURES`.
        reason: the failure, in words.
    """

    def __init__(self, failure: str, reason: str):
        super().__init__(failure, reason)
        self.first_run = FirstRun(failure=failure, reason=reason)

    def __str__(self) -> str:
        return f"{self.first_run.failure}: {self.first_run.reason}"


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A candidate's compiled pass.

    Attributes:
        run: computes the pass.
        seconds: time spent on it before its first call.
    """

    run: Callable[..., Any]
    seconds: float = 0.0


Job = tuple[PassTask, Algorithm]
"""A pass, and the candidate to compute it."""


class Runner:
    """Does the work in this process, and keeps compiled candidates: those of one task,
    or of tasks that were compiled together."""

    def __init__(self) -> None:
        self._tasks: set[PassTask] = set()
        self._compiled: dict[Job, Compiled] = {}
        self._last_sample = -math.inf

    def compile(self, jobs: Sequence[Job]) -> None:
        """Compiles candidates in parallel, on all cores, for `examine` and `time`, and
        computes the reference results meanwhile. XLA and Triton release Python's lock
        (seen in jaxlib 0.10.2 and Triton 3.6). A candidate that raises an exception
        raises it again there.

        Args:
            jobs: what to compile, in addition to what is compiled of these passes.
        """
        tasks = {task for task, _ in jobs}
        if not tasks <= self._tasks:
            self._tasks, self._compiled = tasks, {}
        with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
            running = {job: pool.submit(compiled_ahead, *job) for job in jobs}
            with contextlib.suppress(FailedError):
                for task in dict.fromkeys(task for task, _ in jobs):
                    self.prepare(task)
        for job, each in running.items():
            if each.exception() is None:
                self._compiled[job] = each.result()

    def prepare(self, task: PassTask) -> None:
        """Computes the reference results, once for all candidates.

        Raises:
            FailedError: if they can't be computed.
        """
        try:
            for draw in range(verify.DRAWS):
                verify.exact(task.problem, task.pass_name, draw)
        except Exception as error:
            raise failed(error) from error

    def examine(
        self, task: PassTask, candidate: Algorithm, enough: float = float("inf")
    ) -> FirstRun:
        """Compiles and runs a candidate and measures its error; an exception is the
        first run's failure.

        Args:
            task: the pass.
            candidate: the candidate.
            enough: seconds that a call may take; a slower candidate is not verified.
        """
        try:
            return self._examine(task, candidate, enough)
        except Exception as error:
            return failed(error).first_run

    def _examine(self, task: PassTask, candidate: Algorithm, enough: float) -> FirstRun:
        run = self.function(task, candidate)
        operands = verify.operands(task.problem, task.pass_name, 0)
        call = functools.partial(run, *operands)
        first, second = (seconds_of(call) for _ in range(2))
        ahead = self._compiled[task, candidate].seconds
        compiling = ahead + max(0.0, first - second)
        if second > enough:
            reason = f"{duration(second)} in its first run"
            return FirstRun(second, None, compiling, "outpaced", reason)
        error = verify.error_of(run, task.problem, task.pass_name)
        return FirstRun(min(second, seconds_of(call)), error, compiling)

    def time(
        self,
        task: PassTask,
        candidates: Sequence[Algorithm],
        seconds: float,
        min_rounds: int,
    ) -> dict[Algorithm, list[float]]:
        """The candidates' times, interleaved; sample i of each is from round i.

        Raises:
            FailedError: if one raised an exception.
        """
        try:
            functions = {each: self.function(task, each) for each in candidates}
            operands = verify.operands(task.problem, task.pass_name, 0)
            samples = interleaved(
                functions,
                operands,
                seconds=seconds,
                min_rounds=min_rounds,
                idle_seconds=time.perf_counter() - self._last_sample,
            )
        except Exception as error:
            raise failed(error) from error
        self._last_sample = time.perf_counter()
        return samples

    def roofline(self, compiler_mode: str, dtype: str) -> Roofline:
        """Measures how fast the device copies and multiplies: with smaller arrays if it
        runs out of memory.

        Raises:
            FailedError: if it can't be measured.
        """
        policy: TimingPolicy | None = timing_policy()
        while True:
            try:
                return measure_roofline(compiler_mode, dtype, policy)
            except Exception as error:
                failure = failed(error)
                policy = policy and policy.smaller()
                if failure.first_run.failure != "out of memory" or policy is None:
                    raise failure from error

    def function(self, task: PassTask, candidate: Algorithm) -> Callable[..., Any]:
        """A candidate's pass, compiled as in a model, and kept as long as its task."""
        if task not in self._tasks:
            self._tasks, self._compiled = {task}, {}
        if (task, candidate) not in self._compiled:
            run = pass_of(task, candidate)
            compiled = backends.active.compiled(run, task.compiler_mode)
            self._compiled[task, candidate] = Compiled(compiled)
        return self._compiled[task, candidate].run

    def close(self) -> None:
        """Does nothing: there is no child."""


def pass_of(task: PassTask, candidate: Algorithm) -> Callable[..., Any]:
    """A pass as a function of its operands, as a model's step calls it."""
    if backends.is_python_trace(task.compiler_mode):
        name = str(candidate)
        planned = PlannedConvolution(task.problem, Plan(name, name, name))
        return planned.call_in_trace(task.pass_name)
    return functools.partial(getattr(candidate, task.pass_name), task.problem)


def compiled_ahead(task: PassTask, candidate: Algorithm) -> Compiled:
    """A candidate's pass, compiled as far as possible before the first call."""
    begun = time.perf_counter()
    candidate.compile(task.problem, task.pass_name)
    run = backends.active.compiled_ahead(
        pass_of(task, candidate),
        task.compiler_mode,
        operand_shapes(task.problem, task.pass_name),
        task.problem.dtype,
    )
    return Compiled(run, time.perf_counter() - begun)


def failed(error: Exception) -> FailedError:
    """The failure that an exception means."""
    reason = short(f"{type(error).__name__}: {error}", MAX_LETTERS)
    memory = isinstance(error, MemoryError) or any(
        words in reason.lower() for words in OUT_OF_MEMORY
    )
    return FailedError("out of memory" if memory else "exception", reason)
