"""The dispatcher: from a call to the convolution that computes it, memoised."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from keras_diagwise import backends
from keras_diagwise.algorithms import Matmul
from keras_diagwise.decision import Decision
from keras_diagwise.environment import Environment
from keras_diagwise.plan import Plan, standardize_plan
from keras_diagwise.planning.call import DEPTHWISE, Call, is_left_to_stock, is_symbolic
from keras_diagwise.planning.planned_convolution import PlannedConvolution
from keras_diagwise.planning.planner import (
    MARGIN_MEASURED,
    Answer,
    Planner,
    fallback_plan,
)
from keras_diagwise.planning.source import PlanSource
from keras_diagwise.planning.tuning_queue import TuningQueue
from keras_diagwise.problem import BYTES_PER_ELEMENT, PASSES, Problem
from keras_diagwise.settings import Settings
from keras_diagwise.storage.store import Store

Tensor = Any

MAX_REMEMBERED = 4096

NOT_SERVED = {
    "export": "exports run the stock operation",
    "inference": "an inference-only backend runs the stock operation",
}
"""Compiler modes in which `"auto"` is always stock, and why."""

DENSE_ELSEWHERE = "a dense convolution has no other algorithm here"


class Dispatcher:
    """Finds the convolution of each call, by the first of these that applies:

    - the memo's entry for its key;
    - stock's, if the call is symbolic, of unknown channels or kernel, under a
      transformation that only stock supports, or a `conv` or `dense` of a single
      channel, see `is_left_to_stock`;
    - the plan that it was given;
    - native where only native can compute it, see `why_not_served`;
    - the planner's plan, and, if that was not measured for this exact problem here,
      `settings.on_miss`.

    Args:
        planner: the planner to ask; `None` for one over the user's store, made on
            first use.
        measure: measures a problem and stores the decision, for `on_miss="tune"`; of
            several threads that ask, the first measures and the others wait. Without
            it every miss is queued.

    Attributes:
        settings: the user's settings; a change makes the dispatcher forget what it
            found.
        memo: the convolutions found, by the key of a call: a hashable value that the
            caller makes of whatever tells calls apart. `None` is stock's.
        edition: version of the memo: a compiler of Python code that has read it
            recompiles once it changes. A text, since such compilers treat numbers as
            sizes.
        queue: the problems that `on_miss="tune"` met inside a trace.
        settled: the answers for tuned problems, fixed when `tune` returned, so that
            later results of other workers change no plan during training.
    """

    def __init__(
        self,
        planner: Planner | None = None,
        measure: Callable[[Store, Problem], object] | None = None,
    ):
        self._planner = planner
        self._measure = measure
        self._making = threading.Lock()
        self.settings = Settings(changed=self.forget)
        self.memo: dict[Hashable, PlannedConvolution | None] = {}
        self.edition = "1"
        self.queue = TuningQueue()
        self.settled: dict[tuple[Environment, Problem], Answer] = {}

    @property
    def planner(self) -> Planner:
        """The planner to ask."""
        with self._making:
            if self._planner is None:
                self._planner = Planner(Store())
            return self._planner

    @property
    def store(self) -> Store:
        """The store that the planner reads and the tuner writes."""
        store = self.planner.store
        assert isinstance(store, Store)
        return store

    @store.setter
    def store(self, store: Store) -> None:
        with self._making:
            if self._planner is None:
                self._planner = Planner(store)
            self._planner.store = store
        self.forget()

    def forget(self) -> None:
        """Forgets what was found. Traced functions keep their plans, except under
        `torch.compile`.

        The memo is replaced rather than cleared: a thread that is still resolving a
        call by the old state stores the result in the old one.
        """
        self.memo = {}
        self.edition = str(int(self.edition) + 1)
        self.settled = {}

    def settle(self, environment: Environment, problems: Sequence[Problem]) -> None:
        """Fixes the answers for `problems` until the next `forget`."""
        precision = self.settings.precision
        self.settled = {
            (environment, each): self.planner.plan(each, environment, precision)
            for each in problems
        }

    def resolve(
        self, call: Call, key: Hashable, inputs: Tensor, kernel: Tensor
    ) -> PlannedConvolution | None:
        """The convolution of a call whose key is not in the memo, or `None` if it is
        stock's. The result is memoised, except where the call must run native, and in a
        trace under `on_miss="tune"`, which may queue the problem."""
        if is_symbolic(inputs, kernel) or backends.active.must_run_native():
            return None
        memo = self.memo
        tracing = backends.active.is_tracing(inputs, kernel)
        found = self.convolution(call, tracing)
        if tracing and self.settings.on_miss == "tune":
            return found
        if len(memo) >= MAX_REMEMBERED:
            memo.clear()
        with contextlib.suppress(TypeError):  # a list among the arguments
            memo[key] = found
        return found

    def convolution(
        self, call: Call, tracing: bool, environment: Environment | None = None
    ) -> PlannedConvolution | None:
        """The convolution of a call, without the memo, or `None` if it is stock's.

        Args:
            call: the call.
            tracing: whether it is traced rather than run.
            environment: where it runs; the current one if not given.
        """
        if not call.has_known_sizes:
            return None
        problem, plan = call.problem, standardize_plan(call.plan)
        if call.kind != DEPTHWISE and is_left_to_stock(problem):
            return None
        answer = self.answer_to_call(problem, plan, tracing, environment)
        found = PlannedConvolution(
            problem, answer.plan, answer.source != PlanSource.LAYER
        )
        return None if found.effective_plan.is_native else found

    def name_in_trace(self, call: Call) -> str | None:
        """The convolution, as a text, of a call met by a tracer of Python code, or
        `None` if it is stock's.

        Args:
            call: the call, with `None` for sizes that the trace leaves open.
        """
        trace = backends.active.python_trace
        if trace.must_run_native():
            return None
        environment = dataclasses.replace(
            Environment.current(), compiler_mode=trace.MODE
        )
        found = self.convolution(call, tracing=True, environment=environment)
        return None if found is None else found.name_in_trace

    def answer(
        self,
        problem: Problem,
        plan: str | Plan,
        environment: Environment | None = None,
    ) -> Answer:
        """The plan of `problem` for a layer's `plan`, in an environment: the current
        one if not given. Nothing is measured, and a miss is not an error."""
        if isinstance(plan, Plan):
            plan.check(problem)
            return Answer(plan, PlanSource.LAYER)
        environment = environment or Environment.current()
        if problem.dtype not in BYTES_PER_ELEMENT or why_not_served(
            environment, problem
        ):
            return Answer(fallback_plan(problem, environment), PlanSource.NATIVE)
        precision = self.settings.precision
        answer = self.settled.get((environment, problem))
        answer = answer or self.planner.plan(problem, environment, precision)
        if self.settings.on_miss == "native" and is_missed(problem, answer):
            if answer.source == PlanSource.DECISION and answer.decision:
                measured = {n: str(answer.plan[n]) for n in answer.decision.passes}
                return dataclasses.replace(answer, plan=Plan(**measured))
            return Answer(fallback_plan(problem, environment), PlanSource.NATIVE)
        return answer

    def plan_of(self, decision: Decision) -> Plan:
        """The plan of a decision for its own problem, where it was measured."""
        return decision.plan(MARGIN_MEASURED, precision=self.settings.precision)

    def answer_to_call(
        self,
        problem: Problem,
        plan: str | Plan,
        tracing: bool,
        environment: Environment | None = None,
    ) -> Answer:
        """The plan of a call, under `on_miss`.

        Raises:
            LookupError: if there is no decision and `on_miss` is `"error"`.
        """
        answer, on_miss = self.answer(problem, plan, environment), self.settings.on_miss
        if on_miss not in ("tune", "error") or not is_missed(problem, answer):
            return answer
        if is_dense_elsewhere(problem, environment or Environment.current()):
            return answer
        if on_miss == "error":
            raise LookupError(
                "A convolution was not measured here, and `on_miss` is 'error'. "
                "Measure it with keras_diagwise.tune(model, …), give the layer a plan, "
                "or set keras_diagwise.decisions.on_miss to 'nearest'. "
                f"Received: problem={problem}"
            )
        if tracing or self._measure is None:
            self.queue.add(environment or Environment.current(), problem)
            return answer
        self._measure(self.store, problem)
        return self.answer(problem, plan)


def is_missed(problem: Problem, answer: Answer) -> bool:
    """Whether measuring could supply a missing decision.

    It could not for a dtype or a spatial shape that can't be measured, or where there
    is nothing to compute. An unknown batch is served by the same problem with any
    batch.
    """
    if answer.source == PlanSource.LAYER or not is_measurable(problem):
        return False
    if answer.source == PlanSource.DECISION and answer.decision:
        return not set(PASSES) <= set(answer.decision.passes)
    if (
        problem.batch is None
        and answer.source == PlanSource.NEAREST
        and answer.decision
    ):
        known = answer.decision.problem
        return dataclasses.replace(known, batch=None) != problem
    return True


def why_not_served(
    environment: Environment, problem: Problem | None = None
) -> str | None:
    """Why `"auto"` is always stock there, for every problem or for this one, or `None`
    if it is not."""
    if environment.compiler_mode in NOT_SERVED:
        return NOT_SERVED[environment.compiler_mode]
    if problem is not None and is_dense_elsewhere(problem, environment):
        return DENSE_ELSEWHERE
    return None


def is_dense_elsewhere(problem: Problem, environment: Environment) -> bool:
    """Whether a problem is dense and only stock's algorithm can compute it there."""
    if problem.operation == "matmul" and not backends.active.MATMUL_KEEPS_AXES:
        return True
    return problem.is_dense and not serves_dense(environment)


def serves_dense(environment: Environment) -> bool:
    """Whether dense convolutions have an algorithm other than stock's there."""
    return Matmul.is_offered(environment.device_kind, environment.compiler_mode)


def is_measurable(problem: Problem) -> bool:
    """Whether a problem can be measured once its batch is known."""
    return (
        problem.dtype in BYTES_PER_ELEMENT
        and problem.has_static_spatial_shape
        and 0 not in (problem.batch, *problem.output_spatial_shape)
    )
