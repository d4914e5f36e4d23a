"""The functional op: problem → plan → the three passes as one differentiable op."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from keras_diagwise import backends
from keras_diagwise.algorithms import Algorithm, Native
from keras_diagwise.planning.environment import Environment
from keras_diagwise.planning.plan import AUTO, Plan, standardize_plan
from keras_diagwise.planning.planner import Answer, Planner, least_plan
from keras_diagwise.problem import (
    BYTES_PER_ELEMENT,
    PASSES,
    Problem,
    check_data_format,
)

Tensor = Any

MOST_REMEMBERED = 4096


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A problem and the plan that computes it: what a backend differentiates."""

    problem: Problem
    plan: Plan

    def compute(self, pass_name: str, left: Tensor, right: Tensor) -> Tensor:
        """A pass, by its algorithm: `forward(inputs, kernel)`,
        `input_gradient(kernel, output_gradient)` or `kernel_gradient(inputs,
        output_gradient)`."""
        return getattr(self.algorithm(pass_name), pass_name)(self.problem, left, right)

    def algorithm(self, pass_name: str) -> Algorithm:
        """The plan's algorithm for a pass, or `native` where it can't compute the
        problem."""
        algorithm = self.plan[pass_name]
        return algorithm if algorithm.refusal(self.problem) is None else Native()

    @property
    def effective_plan(self) -> Plan:
        """The plan with `native` in place of what can't compute the problem."""
        return Plan(**{name: str(self.algorithm(name)) for name in PASSES})

    def result_shape(self, pass_name: str, left_shape, right_shape) -> tuple:
        """The shape of a pass's result, from those of its operands."""
        if pass_name == "forward":
            return self.problem.output_shape(left_shape[0])
        if pass_name == "input_gradient":
            return self.problem.input_shape(right_shape[0])
        return self.problem.kernel_shape


class Conductor:
    """Finds the convolution for a call and remembers it."""

    def __init__(self, planner: Planner | None = None):
        self._planner = planner
        self._memo: dict[tuple, Any] = {}

    @property
    def planner(self) -> Planner:
        """The planner that answers."""
        return self._planner or Planner.shipped()

    def convolution(
        self, inputs, kernel, strides, padding, data_format, dilation_rate, plan
    ) -> Convolution | None:
        """The convolution of a depthwise call, or `None` if it is native
        throughout. A symbolic call is native, and is not remembered."""
        key = (
            inputs.shape,
            inputs.dtype,
            kernel.shape,
            strides,
            padding,
            data_format,
            dilation_rate,
            plan,
            backends.active.trace_key(),
        )
        try:
            found = self._memo.get(key, self)
        except TypeError:  # a list among the arguments
            return None if is_symbolic(inputs, kernel) else self.find(*key[:-1])
        if found is not self:
            return found
        if is_symbolic(inputs, kernel) or backends.active.must_run_native():
            return None
        found = self.find(*key[:-1])
        if len(self._memo) >= MOST_REMEMBERED:
            self._memo.clear()
        self._memo[key] = found
        return found

    def find(
        self, shape, dtype, kernel_shape, strides, padding, data_format, dilation, plan
    ) -> Convolution | None:
        """The same from the shapes, without the memo."""
        if (
            len(shape) > 1
            and shape[1 if data_format == "channels_first" else -1] is None
        ):
            return None
        problem = on_one_device(
            depthwise_problem(
                shape, dtype, kernel_shape, strides, padding, data_format, dilation
            )
        )
        plan = standardize_plan(plan)
        found = Convolution(problem, self.answer(problem, plan).plan)
        return None if found.effective_plan.is_native else found

    def answer(
        self,
        problem: Problem,
        plan: str | Plan,
        environment: Environment | None = None,
    ) -> Answer:
        """The plan of `problem` where a layer says `plan`, in an environment: that
        of a call now, if none is given."""
        if isinstance(plan, Plan):
            plan.check(problem)
            return Answer(plan, "layer")
        if problem.dtype not in BYTES_PER_ELEMENT:
            return Answer(least_plan(problem), "native")
        return self.planner.plan(problem, environment or Environment.current())


conductor = Conductor()


def on_one_device(problem: Problem) -> Problem:
    """The problem with the share of the batch that one device sees."""
    shards = backends.active.batch_shards()
    if shards == 1 or problem.batch is None:
        return problem
    return dataclasses.replace(problem, batch=max(1, problem.batch // shards))


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
    problem = Problem.from_shapes(
        shape,
        (*kernel_size, 1, channels * depth_multiplier),
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilation_rate=dilation_rate,
        dtype=keras.backend.standardize_dtype(dtype),
    )
    return problem


def depthwise_conv(
    inputs: Tensor,
    kernel: Tensor,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: int | Sequence[int] = 1,
    *,
    plan: str | Plan = AUTO,
) -> Tensor:
    """Depthwise convolution of any rank that Keras knows, by a plan.

    A drop-in for `keras.ops.depthwise_conv`, with the same numbers up to rounding.

    Args:
        inputs: `(batch, *spatial_shape, channels)` or, under `"channels_first"`,
            `(batch, channels, *spatial_shape)`.
        kernel: `(*kernel_size, channels, depth_multiplier)`.
        strides: one stride, or one for each spatial axis.
        padding: `"valid"` or `"same"`.
        data_format: `"channels_last"`, `"channels_first"`, or `None` for Keras's
            `image_data_format`.
        dilation_rate: distance between taps: one, or one for each spatial axis.
        plan: `"auto"`, an algorithm for all three passes, or a `Plan`.

    Returns:
        `(batch, *output_shape, channels * depth_multiplier)`, or the same with
        the channels first.

    Raises:
        ValueError: if the shapes or arguments do not fit each other, or `plan`
            is not one, or its partition size exceeds the channels.

    Example:

    >>> x = np.ones((2, 8, 8, 4), "float32")
    >>> k = np.ones((3, 3, 4, 1), "float32")
    >>> depthwise_conv(x, k, padding="same", plan="direct").shape
    (2, 8, 8, 4)
    """
    data_format = data_format or keras.config.image_data_format()
    arguments = (strides, padding, data_format, dilation_rate)
    if backends.active.traces_python():
        return keras.ops.depthwise_conv(inputs, kernel, *arguments)
    try:
        convolution = conductor.convolution(inputs, kernel, *arguments, plan)
    except AttributeError:  # lists, which have no shape
        inputs, kernel = map(keras.ops.convert_to_tensor, (inputs, kernel))
        convolution = conductor.convolution(inputs, kernel, *arguments, plan)
    if (
        convolution is None
        or is_symbolic(inputs, kernel)
        or backends.active.must_run_native()
    ):
        return keras.ops.depthwise_conv(inputs, kernel, *arguments)
    inputs = keras.ops.convert_to_tensor(inputs)
    kernel = keras.ops.convert_to_tensor(kernel)
    if inputs.dtype != kernel.dtype:
        return keras.ops.depthwise_conv(inputs, kernel, *arguments)
    kernel = keras.ops.reshape(kernel, convolution.problem.kernel_shape)
    return backends.active.differentiable(convolution, inputs, kernel)


def is_symbolic(inputs, kernel) -> bool:
    """Whether Keras only asks for shapes."""
    return (
        isinstance(inputs, keras.KerasTensor)
        or isinstance(kernel, keras.KerasTensor)
        or backends.keras_internals.in_symbolic_scope()
    )
