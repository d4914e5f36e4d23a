"""The tuner: verifies and measures a problem's candidates, and stores a decision."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from keras_diagwise import backends
from keras_diagwise.decision import SURE_FAILURES, Decision
from keras_diagwise.environment import Environment
from keras_diagwise.problem import PASS_NAMES, PASSES, Problem
from keras_diagwise.storage.leases import host
from keras_diagwise.storage.locations import digest_of
from keras_diagwise.storage.store import Store
from keras_diagwise.tuner.candidates import is_decided
from keras_diagwise.tuner.comparer import Comparer
from keras_diagwise.tuner.measure import MEASURING
from keras_diagwise.tuner.roofline import Roofline
from keras_diagwise.tuner.runner import BudgetSpentError
from keras_diagwise.tuner.subprocess_runner import SubprocessRunner

SECONDS_BETWEEN_LOOKS = 0.5
"""Polling interval while another worker measures."""

logger = logging.getLogger("keras_diagwise")


class Tuner:
    """Measures problems in one environment and writes decisions into a store.

    Args:
        store: where decisions are stored, each pass as soon as it is known.
        environment: what to measure for; the current one if not given.
        until: the `time.monotonic()` at which to stop.
        timeout: seconds that a candidate may take to compile and run.
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
        timeout: float = 60.0,
        exhaustive: bool = False,
    ):
        self.store = store
        self.environment = environment or Environment.current()
        self.measured = 0
        self.awaited: set[Problem] = set()
        self._leases = store.leases(self.environment)
        self._devices = store.device_leases()
        self._until = until
        self._runner = SubprocessRunner(timeout, until)
        self._comparer = Comparer(
            self.environment,
            self._runner,
            until=until,
            timeout=timeout,
            exhaustive=exhaustive,
        )

    def close(self) -> None:
        """Ends the child process; the next measurement starts another."""
        self._runner.close()

    def known(self, problem: Problem) -> Decision:
        """The stored decision for a problem in this environment, or an empty one."""
        return self.store.get(self.environment, problem) or Decision(problem, {})

    def roofline(self, dtype: str) -> Roofline | None:
        """The device's roofline, measured once per dtype, or `None` if that failed."""
        return self._comparer.roofline(dtype)

    def tune(
        self,
        problem: Problem,
        passes: Sequence[str] = PASSES,
        on_done: Callable[[str], None] = lambda pass_name: None,
    ) -> Decision:
        """The decision for a problem: passes that the store has are not measured again,
        and those that another worker measures are waited for.

        Args:
            problem: a problem whose batch and spatial shape are known.
            passes: the passes to decide.
            on_done: called with the name of each pass once it is decided, or left
                undecided since native failed.

        Raises:
            BudgetSpentError: if the time is over. Decided passes are in the store.
        """
        if problem.batch in (None, 0) or not problem.has_static_spatial_shape:
            raise ValueError(
                "A problem must have a known batch and spatial shape to be measured. "
                f"Received: problem={problem}"
            )
        while True:
            decision = self.tune_unless_leased(problem, passes, on_done)
            if decision is not None:
                return decision
            self.pause()

    def tune_unless_leased(
        self,
        problem: Problem,
        passes: Sequence[str] = PASSES,
        on_done: Callable[[str], None] = lambda pass_name: None,
    ) -> Decision | None:
        """`tune` without waiting: `None` if another worker measures the problem, or
        another process measures on the device."""
        decision = self.known(problem)
        if all(is_decided(decision, name) for name in passes):
            for pass_name in passes:
                on_done(pass_name)
            return decision
        with self.leased(problem.digest) as is_ours:
            if is_ours:
                with self.device() as is_free:
                    if is_free:
                        return self._measure(problem, passes, on_done)
        self.awaited.add(problem)
        return None

    def leased(self, task: str) -> AbstractContextManager[bool]:
        """The lease on a task that one worker does for all, see `Leases.held`."""
        return self._leases.held(task)

    def device(self) -> AbstractContextManager[bool]:
        """The lease on the device: two measurements on it would disturb each other,
        whatever their environments."""
        return self._devices.held(digest_of(host(), device_place()))

    def pause(self) -> None:
        """Waits a moment for another worker.

        Raises:
            BudgetSpentError: if the time is over.
        """
        left = self._until - time.monotonic()
        if left <= 0:
            raise BudgetSpentError
        time.sleep(min(left, SECONDS_BETWEEN_LOOKS))

    def _measure(self, problem, passes, on_done) -> Decision:
        decision = self.known(problem)
        missing = [each for each in passes if not is_decided(decision, each)]
        if missing and self._comparer.compiles_ahead:
            with self._alone():
                self._comparer.compile_ahead(problem, missing)
        for pass_name in passes:
            if pass_name in missing:
                with self._alone():
                    decision |= self._decide(problem, pass_name)
            on_done(pass_name)
        return decision

    def _decide(self, problem: Problem, pass_name: str) -> Decision:
        """The decision for a pass, measured unless another thread or process has
        stored it meanwhile."""
        decision = self.known(problem)
        if is_decided(decision, pass_name):
            return decision
        comparison = self._comparer.compare(problem, pass_name)
        native = comparison.outcomes["native"]
        if native.failure not in (None, *SURE_FAILURES):
            # It runs in the model: here it lacked memory or time, or crashed.
            logger.warning(
                "keras_diagwise: the %s of %s remains undecided, since native failed "
                "(%s: %s). Run `keras-diagwise tune` again, in a process of its own, "
                "while the device is idle.",
                PASS_NAMES[pass_name],
                problem,
                native.failure,
                native.reason,
            )
            return decision
        decision |= Decision(problem, {pass_name: comparison})
        self.store.put(self.environment, decision)
        self.measured += 1
        return decision

    def verified(self, decision: Decision) -> Decision:
        """The decision with a failure for every candidate that fails or computes wrong
        numbers here. Nothing is timed. Native is not tried: a model runs it anyway."""
        passes = {}
        for name, comparison in decision.passes.items():
            with self._alone():
                passes[name] = self._comparer.verified(
                    decision.problem, name, comparison
                )
        return Decision(decision.problem, passes)

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


def device_place() -> str:
    """A name for the device to measure on, among those of this machine; the same under
    every backend."""
    index = backends.active.accelerator_index()
    if index is None:
        return "cpu"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = [each.strip() for each in visible if each.strip()]
    return names[index] if index < len(names) else str(index)
