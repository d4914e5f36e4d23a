"""From a call to the convolution that computes it, which is remembered."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Sequence
from typing import Any

import keras

from keras_diagwise import backends
from keras_diagwise.planning.decision import Decision
from keras_diagwise.planning.environment import Environment
from keras_diagwise.planning.plan import Plan, standardize_plan
from keras_diagwise.planning.planned_convolution import PlannedConvolution
from keras_diagwise.planning.planner import (
    MARGIN_MEASURED,
    Answer,
    Planner,
    least_plan,
)
from keras_diagwise.planning.store import Store
from keras_diagwise.precision import PRECISIONS, STANDARD
from keras_diagwise.problem import (
    BYTES_PER_ELEMENT,
    PASSES,
    Problem,
    check_data_format,
)
from keras_diagwise.tuner.tuner import Tuner

Tensor = Any

ON_MISS = ("nearest", "native", "tune", "error")
ON_MISS_VARIABLE = "KERAS_DIAGWISE_ON_MISS"
PRECISION_VARIABLE = "KERAS_DIAGWISE_PRECISION"

MAX_REMEMBERED = 4096
MAX_QUEUED = 1024

NOT_SERVED = {
    "export": "what is exported runs stock's own operation",
    "inference": "a backend that trains nothing runs stock's own operation",
}
"""Compiler modes in which nothing is chosen, and why."""

LENGTH_OF_KEY = 9
GROUPED = "grouped"
"""What a call of `conv` is told apart by: it stands behind what a depthwise call is
told apart by, whose look-up takes no step for it."""


class Setting:
    """What a user sets on the conductor, which then forgets what it found. Before that
    it is what an environment variable says, looked up when first asked.

    Args:
        choices: what it may be.
        default: what it is where the variable is not set.
        variable: the environment variable.
    """

    def __init__(self, choices: Sequence[str], default: str, variable: str):
        self._choices = choices
        self._default = default
        self._variable = variable

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, conductor: Conductor, owner: type) -> str:
        if vars(conductor).get(self._name) is None:
            value = os.environ.get(self._variable, self._default)
            vars(conductor)[self._name] = one_of(self._choices, value, self._variable)
        return vars(conductor)[self._name]

    def __set__(self, conductor: Conductor, value: str) -> None:
        value = one_of(self._choices, value, self._name)
        if vars(conductor).get(self._name) != value:
            vars(conductor)[self._name] = value
            conductor.forget()


class Conductor:
    """Finds the convolution for a call and remembers it.

    Args:
        planner: what answers; `None` is one over the user's store, made when it is
            first asked.

    Attributes:
        memo: what was found, by what a call is told apart by, or `None` for a call that
            is native throughout.
        edition: of what was found: a compiler of Python code that read it compiles anew
            once it is another. A text, since such compilers take numbers for sizes.
        queued: the problems that `on_miss="tune"` met inside a trace, each with its
            environment, in order.
        settled: the answers to what was tuned, from when `tune` returned: what other
            workers find later changes no plan in the midst of a training.
        on_miss: what happens where no decision was measured for the very problem
            here.
        precision: how precise what serves must be.
    """

    on_miss = Setting(ON_MISS, "nearest", ON_MISS_VARIABLE)
    precision = Setting(PRECISIONS, STANDARD, PRECISION_VARIABLE)

    def __init__(self, planner: Planner | None = None):
        self._planner = planner
        self._making = threading.Lock()
        self.memo: dict[tuple, PlannedConvolution | None] = {}
        self.edition = "1"
        self.queued: dict[tuple[Environment, Problem], None] = {}
        self.settled: dict[tuple[Environment, Problem], Answer] = {}

    @property
    def planner(self) -> Planner:
        """The planner that answers."""
        with self._making:
            if self._planner is None:
                self._planner = Planner(Store())
            return self._planner

    @property
    def store(self) -> Store:
        """Where the planner finds what was measured here, and the tuner puts it."""
        store = self.planner.store
        assert isinstance(store, Store)
        return store

    @store.setter
    def store(self, store: Store) -> None:
        self.planner.store = store
        self.forget()

    def forget(self) -> None:
        """Forgets what was found; what is traced keeps its plan, but under
        `torch.compile`.

        The memo is another one from here on: what a thread is just finding by what
        held before goes into the old one.
        """
        self.memo = {}
        self.edition = str(int(self.edition) + 1)
        self.settled = {}

    def settle(self, environment: Environment, problems: Sequence[Problem]) -> None:
        """Answers problems once and for all, until what was found is forgotten."""
        self.settled = {
            (environment, each): self.planner.plan(each, environment, self.precision)
            for each in problems
        }

    def convolution(self, inputs, kernel, key: tuple) -> PlannedConvolution | None:
        """The convolution of a call that is not in the memo, or `None` if it is
        native throughout. A symbolic call is native, and not remembered; nor is
        what waits for being measured."""
        if is_symbolic(inputs, kernel) or backends.active.must_run_native():
            return None
        memo = self.memo
        tracing = backends.active.is_tracing(inputs, kernel)
        found = self.find(key, tracing)
        if tracing and self.on_miss == "tune":
            return found
        if len(memo) >= MAX_REMEMBERED:
            memo.clear()
        with contextlib.suppress(TypeError):  # a list among the arguments
            memo[key] = found
        return found

    def find(
        self, key: tuple, tracing: bool, environment: Environment | None = None
    ) -> PlannedConvolution | None:
        """The same from the key, without the memo, in an environment: that of a call
        now, if none is given."""
        *arguments, plan, _ = key[:LENGTH_OF_KEY]
        is_grouped = len(key) > LENGTH_OF_KEY
        shape, data_format = arguments[0], arguments[5]
        if (
            len(shape) > 1
            and shape[1 if data_format == "channels_first" else -1] is None
        ):
            return None
        problem_of_call = grouped_problem if is_grouped else depthwise_problem
        problem = on_one_device(problem_of_call(*arguments))
        plan = standardize_plan(plan)
        if is_dense(problem) and is_grouped:
            if isinstance(plan, Plan):
                plan.check(problem)
            return None
        answer = self.answer_to_call(problem, plan, tracing, environment)
        found = PlannedConvolution(problem, answer.plan, answer.rung != "layer")
        return None if found.effective_plan.is_native else found

    def name_in_trace(self, key: tuple) -> str | None:
        """The convolution of a call that a tracer of Python code meets, as a text, or
        `None` if it is stock's.

        Args:
            key: of the call, with `None` for the sizes that the trace leaves open.
        """
        trace, kernel_shape = backends.active.python_trace, key[2]
        if trace.must_run_native() or None in kernel_shape:
            return None
        environment = dataclasses.replace(
            Environment.current(), compiler_mode=trace.MODE
        )
        found = self.find(key, tracing=True, environment=environment)
        return None if found is None else found.name_in_trace

    def answer(
        self,
        problem: Problem,
        plan: str | Plan,
        environment: Environment | None = None,
    ) -> Answer:
        """The plan of `problem` where a layer says `plan`, in an environment: that
        of a call now, if none is given. Nothing is measured, and nothing missed is
        an error."""
        if isinstance(plan, Plan):
            plan.check(problem)
            return Answer(plan, "layer")
        environment = environment or Environment.current()
        if problem.dtype not in BYTES_PER_ELEMENT or not is_served(environment):
            return Answer(least_plan(problem, environment), "native")
        answer = self.settled.get((environment, problem))
        answer = answer or self.planner.plan(problem, environment, self.precision)
        if self.on_miss == "native" and is_missed(problem, answer):
            if answer.rung == "decision" and answer.decision:
                measured = {n: str(answer.plan[n]) for n in answer.decision.passes}
                return Answer(Plan(**measured), answer.rung, answer.decision)
            return Answer(least_plan(problem, environment), "native")
        return answer

    def plan_of(self, decision: Decision) -> Plan:
        """What a decision says for its own problem, where it was measured."""
        return decision.plan(MARGIN_MEASURED, precision=self.precision)

    def answer_to_call(
        self,
        problem: Problem,
        plan: str | Plan,
        tracing: bool,
        environment: Environment | None = None,
    ) -> Answer:
        """The plan of a call, by what `on_miss` says.

        Raises:
            LookupError: if no decision is there and `on_miss` is `"error"`.
        """
        answer = self.answer(problem, plan, environment)
        if self.on_miss not in ("tune", "error") or not is_missed(problem, answer):
            return answer
        if self.on_miss == "error":
            raise LookupError(
                "No decision was measured here for a convolution, and `on_miss` is "
                "'error'. Measure it with keras_diagwise.tune(model, …), give the "
                "layer a plan, or set keras_diagwise.decisions.on_miss to 'nearest'. "
                f"Received: problem={problem}"
            )
        if tracing:
            self.queue(problem, environment)
            return answer
        self.tune_now(problem)
        return self.answer(problem, plan)

    def tune_now(self, problem: Problem) -> None:
        """Measures a problem and keeps the decision; of several threads that ask, the
        first measures and the others wait."""
        with contextlib.closing(Tuner(self.store)) as tuner:
            tuner.tune(problem)

    def queue(self, problem: Problem, environment: Environment | None = None) -> None:
        """Leaves a problem to the next `tune()`, unless too many wait."""
        if len(self.queued) < MAX_QUEUED:
            self.queued[environment or Environment.current(), problem] = None

    def queued_in(
        self, environment: Environment, batch_sizes: Sequence[int], shards: int
    ) -> list[Problem]:
        """What waits to be measured in an environment.

        Args:
            environment: the environment.
            batch_sizes: of whole steps, that stand in for a batch that is not known.
            shards: how many devices share a step's batch.
        """
        found: dict[Problem, None] = {}
        for known, problem in list(self.queued):
            if known == environment and problem.batch is not None:
                found[problem] = None
            elif known == environment:
                for batch in batch_sizes:
                    whole = dataclasses.replace(problem, batch=batch)
                    found[on_one_device(whole, shards)] = None
        return list(found)

    def unqueue(self, environment: Environment, problem: Problem) -> None:
        """Takes a problem that was measured from what waits, also without its batch."""
        for each in (problem, dataclasses.replace(problem, batch=None)):
            self.queued.pop((environment, each), None)


def is_missed(problem: Problem, answer: Answer) -> bool:
    """Whether measuring could give a decision where there is none.

    It could not for a dtype or a spatial shape that can't be measured, or where
    nothing is to be computed; and an unknown batch is served by the same problem
    with any batch.
    """
    if answer.rung == "layer" or not is_measurable(problem):
        return False
    if answer.rung == "decision" and answer.decision:
        return not set(PASSES) <= set(answer.decision.passes)
    if problem.batch is None and answer.rung == "nearest" and answer.decision:
        known = answer.decision.problem
        return dataclasses.replace(known, batch=None) != problem
    return True


def is_served(environment: Environment) -> bool:
    """Whether `"auto"` can be anything but stock there."""
    return environment.compiler_mode not in NOT_SERVED


def is_measurable(problem: Problem) -> bool:
    """Whether a problem can be measured once its batch is known."""
    return (
        problem.dtype in BYTES_PER_ELEMENT
        and problem.has_static_spatial_shape
        and 0 not in (problem.batch, *problem.output_spatial_shape)
    )


def one_of(choices: Sequence[str], value: str, name: str) -> str:
    """`value`, if it is one of `choices`.

    Raises:
        ValueError: if it is not.
    """
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, choices))}. "
            f"Received: {name}={value!r}"
        )
    return value


def on_one_device(problem: Problem, shards: int | None = None) -> Problem:
    """The problem with the share of the batch that one device sees.

    Args:
        problem: the problem of the whole batch.
        shards: how many devices share it; `None` is those of a trace.
    """
    if shards is None:
        shards = backends.active.batch_shards()
    if shards == 1 or problem.batch is None:
        return problem
    return dataclasses.replace(problem, batch=max(1, problem.batch // shards))


def is_dense(problem: Problem) -> bool:
    """Whether there is one group only, for which there is no algorithm but stock's."""
    return problem.groups == 1


def grouped_problem(
    shape, dtype, kernel_shape, strides, padding, data_format, dilation_rate
) -> Problem:
    """The problem of a call of `conv`.

    Raises:
        ValueError: if the arguments do not fit each other.
    """
    return Problem.from_shapes(
        shape,
        kernel_shape,
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilation_rate=dilation_rate,
        dtype=keras.backend.standardize_dtype(dtype),
    )


def depthwise_problem(
    shape, dtype, kernel_shape, strides, padding, data_format, dilation_rate
) -> Problem:
    """The problem of a depthwise call.

    Raises:
        ValueError: if the arguments do not fit each other.
    """
    check_data_format(data_format)
    if len(shape) < 3 or len(kernel_shape) != len(shape):
        raise ValueError(
            "`inputs` and `kernel` must have the same number of axes, 3 or more. "
            f"Received: inputs.shape={tuple(shape)}, kernel.shape={tuple(kernel_shape)}"
        )
    *kernel_size, channels, depth_multiplier = kernel_shape
    received = shape[-1 if data_format == "channels_last" else 1]
    if received != channels:
        raise ValueError(
            f"The number of channels of `inputs` (={received}) must equal the "
            f"kernel's (={channels}). Received: inputs.shape={tuple(shape)}, "
            f"kernel.shape={tuple(kernel_shape)}, data_format={data_format!r}"
        )
    grouped_shape = (*kernel_size, 1, channels * depth_multiplier)
    return grouped_problem(
        shape, dtype, grouped_shape, strides, padding, data_format, dilation_rate
    )


def is_symbolic(inputs, kernel) -> bool:
    """Whether Keras only asks for shapes."""
    return (
        isinstance(inputs, keras.KerasTensor)
        or isinstance(kernel, keras.KerasTensor)
        or backends.keras_internals.in_symbolic_scope()
    )


conductor = Conductor()
