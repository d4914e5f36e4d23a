"""The functional calls: problem → plan → the three passes as one differentiable op."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_diagwise import backends
from keras_diagwise.algorithms import dense_conv
from keras_diagwise.environment import Environment
from keras_diagwise.plan import AUTO, Plan
from keras_diagwise.planning.call import (
    DEPTHWISE,
    GROUPED,
    MATMUL,
    Call,
    grouped_problem,
    is_symbolic,
)
from keras_diagwise.planning.dispatch import Dispatcher, serves_dense
from keras_diagwise.problem import DATA_FORMATS, Problem
from keras_diagwise.storage.store import Store

Tensor = Any


def measure(store: Store, problem: Problem) -> None:
    """Measures a problem and stores the decision."""
    # The tuner starts processes: imported only once something is measured.
    from keras_diagwise.tuner.tuner import Tuner

    with contextlib.closing(Tuner(store)) as tuner:
        tuner.tune(problem)


dispatcher = Dispatcher(measure=measure)
"""The dispatcher of every call."""

stock_depthwise_conv = ops.depthwise_conv
native_conv = backends.active.native_conv
standardize_dtype = keras.backend.standardize_dtype
image_data_format = keras.config.image_data_format
traces_python = backends.active.traces_python
trace_key = backends.active.trace_key
shape_of = backends.active.shape_of
"""Bound here: each attribute lookup or further function call costs an eager call 0.1 to
0.7 µs between real work, when the CPU's caches hold nothing of the package."""


def standardize_data_format(data_format: str | None) -> str:
    """Keras's `image_data_format` for `None`, and a format's name in lower case."""
    if data_format is None:
        return image_data_format()
    name = str(data_format).lower()
    return name if name in DATA_FORMATS else data_format


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
    """Depthwise convolution of any rank that Keras supports, by a plan.

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
        `(batch, *output_shape, channels * depth_multiplier)`, or with the channels
        first.

    Raises:
        ValueError: if the shapes or arguments do not fit each other, `plan` is
            invalid, or its partition size exceeds the channels.

    Example:

    >>> x = np.ones((2, 8, 8, 4), "float32")
    >>> k = np.ones((3, 3, 4, 1), "float32")
    >>> depthwise_conv(x, k, padding="same", plan="direct").shape
    (2, 8, 8, 4)
    """
    if data_format not in DATA_FORMATS:
        data_format = standardize_data_format(data_format)
    outputs = convolved_by_plan(
        DEPTHWISE,
        inputs,
        kernel,
        strides,
        padding,
        data_format,
        dilation_rate,
        plan,
    )
    if outputs is None:
        return stock_depthwise_conv(
            inputs, kernel, strides, padding, data_format, dilation_rate
        )
    return outputs


def conv(
    inputs: Tensor,
    kernel: Tensor,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: int | Sequence[int] = 1,
    *,
    plan: str | Plan = AUTO,
) -> Tensor:
    """Grouped convolution, 1-D to 3-D, by a plan.

    A drop-in for `keras.ops.conv`, with the same numbers up to rounding. With one
    group it is dense, and may run by `matmul`; with one channel it is the stock
    operation, whatever the plan.

    Args:
        inputs: `(batch, *spatial_shape, channels)` or, under `"channels_first"`,
            `(batch, channels, *spatial_shape)`.
        kernel: `(*kernel_size, channels_per_group, filters)`: the number of groups
            is `channels // channels_per_group`.
        strides: one stride, or one for each spatial axis.
        padding: `"valid"` or `"same"`.
        data_format: `"channels_last"`, `"channels_first"`, or `None` for Keras's
            `image_data_format`.
        dilation_rate: distance between taps: one, or one for each spatial axis.
        plan: `"auto"`, an algorithm for all three passes, or a `Plan`.

    Returns:
        `(batch, *output_shape, filters)`, or with the channels first.

    Raises:
        ValueError: if the shapes or arguments do not fit each other, `plan` is
            invalid, or its partition size does not fit the channels.

    Example:

    >>> x = np.ones((2, 8, 8, 8), "float32")
    >>> k = np.ones((3, 3, 2, 12), "float32")
    >>> conv(x, k, padding="same", plan="diagonal:4:split").shape
    (2, 8, 8, 12)
    """
    if data_format not in DATA_FORMATS:
        data_format = standardize_data_format(data_format)
    outputs = convolved_by_plan(
        GROUPED,
        inputs,
        kernel,
        strides,
        padding,
        data_format,
        dilation_rate,
        plan,
    )
    if outputs is None:
        inputs, kernel = with_shapes(inputs, kernel)
        return native_conv(inputs, kernel, strides, padding, data_format, dilation_rate)
    return outputs


def separable_conv(
    inputs: Tensor,
    depthwise_kernel: Tensor,
    pointwise_kernel: Tensor,
    strides: int | Sequence[int],
    padding: str,
    data_format: str,
    dilation_rate: int | Sequence[int],
    plan: str | Plan,
    pointwise_plan: str | Plan,
) -> Tensor:
    """Depthwise convolution by one plan, then pointwise convolution by another. Equals
    `keras.ops.separable_conv`, which runs if both are native."""
    arguments = strides, padding, data_format, dilation_rate
    outputs = convolved_by_plan(DEPTHWISE, inputs, depthwise_kernel, *arguments, plan)
    if outputs is None and may_be_matmul(pointwise_plan):
        outputs = stock_depthwise_conv(inputs, depthwise_kernel, *arguments)
    if outputs is None:
        return ops.separable_conv(
            inputs, depthwise_kernel, pointwise_kernel, *arguments
        )
    pointwise = 1, "valid", data_format, 1
    found = convolved_by_plan(
        GROUPED, outputs, pointwise_kernel, *pointwise, pointwise_plan
    )
    if found is not None:
        return found
    if traces_python():
        return native_conv(outputs, pointwise_kernel, *pointwise)
    pointwise_kernel = ops.convert_to_tensor(pointwise_kernel)
    problem = grouped_problem(
        shape_of(outputs), outputs.dtype, pointwise_kernel.shape, *pointwise
    )
    return dense_conv.forward(problem, outputs, pointwise_kernel)


def dense(inputs: Tensor, kernel: Tensor, plan: str | Plan) -> Tensor:
    """The product of a dense layer over pixels by a plan: what `keras.ops.matmul`
    computes, which it is where all passes are native.

    Args:
        inputs: `(batch, *spatial_shape, channels)`, of 1 to 3 spatial axes.
        kernel: `(channels, units)`.
        plan: `"auto"`, an algorithm for all three passes, or a `Plan`.

    Returns:
        `(batch, *spatial_shape, units)`.
    """
    outputs = convolved_by_plan(
        MATMUL, inputs, kernel, 1, "valid", "channels_last", 1, plan
    )
    return ops.matmul(inputs, kernel) if outputs is None else outputs


def may_be_matmul(plan: str | Plan) -> bool:
    """Whether a dense convolution may run by an algorithm other than stock's."""
    if isinstance(plan, Plan):
        return not plan.is_native
    return backends.active.HAS_XLA and serves_dense(Environment.current())


def convolved_by_plan(
    kind, inputs, kernel, strides, padding, data_format, dilation_rate, plan
) -> Tensor | None:
    """The outputs of a call by its plan, or `None` if stock must compute them.

    Args:
        kind: `DEPTHWISE`, `GROUPED` or `MATMUL`.
        inputs, kernel: the operands, in the shapes of a call of this kind.
        strides, padding, data_format, dilation_rate, plan: the call's arguments.
    """
    if traces_python():
        return convolved_in_trace(
            kind, inputs, kernel, strides, padding, data_format, dilation_rate, plan
        )
    try:
        key = (
            kind,
            shape_of(inputs),
            inputs.dtype,
            shape_of(kernel),
            strides,
            padding,
            data_format,
            dilation_rate,
            plan,
            trace_key(),
        )
        convolution = dispatcher.memo[key]
    except AttributeError:  # lists, which have no shape
        inputs, kernel = map(ops.convert_to_tensor, (inputs, kernel))
        return convolved_by_plan(
            kind, inputs, kernel, strides, padding, data_format, dilation_rate, plan
        )
    except (KeyError, TypeError):  # a cache miss, or a list in the key
        if isinstance(inputs, np.ndarray) or isinstance(kernel, np.ndarray):
            # The backend's dtype may be another: JAX's is float32 for float64.
            inputs, kernel = map(as_tensor, (inputs, kernel))
            return convolved_by_plan(
                kind, inputs, kernel, strides, padding, data_format, dilation_rate, plan
            )
        call = Call(
            kind=kind,
            input_shape=shape_of(inputs),
            dtype=inputs.dtype,
            kernel_shape=shape_of(kernel),
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            plan=plan,
        )
        convolution = dispatcher.resolve(call, key, inputs, kernel)
    if (
        convolution is None
        or is_symbolic(inputs, kernel)
        or backends.active.must_run_native()
    ):
        return None
    inputs = ops.convert_to_tensor(inputs)
    kernel = ops.convert_to_tensor(kernel)
    if inputs.dtype != kernel.dtype:  # the backend's to resolve
        return None
    if kind != GROUPED:
        kernel = ops.reshape(kernel, convolution.problem.kernel_shape)
    return backends.active.differentiable(convolution, inputs, kernel)


def as_tensor(operand):
    """An array of NumPy as a tensor, in the backend's dtype for it."""
    is_array = isinstance(operand, np.ndarray)
    return ops.convert_to_tensor(operand) if is_array else operand


def convolved_in_trace(
    kind, inputs, kernel, strides, padding, data_format, dilation_rate, plan
) -> Tensor | None:
    """`convolved_by_plan` in a trace of Python code: the graph of a call that is
    stock's holds nothing of the package."""
    trace = backends.active.python_trace
    if trace is None:
        return None
    inputs, kernel = with_shapes(inputs, kernel)
    dtype = standardize_dtype(inputs.dtype)
    if dtype != standardize_dtype(kernel.dtype):
        return None
    if trace.is_open(strides, dilation_rate) or trace.is_elsewhere():
        return None
    edition = dispatcher.edition if plan == AUTO else ""
    if isinstance(plan, Plan):
        plan = plan.forward, plan.input_gradient, plan.kernel_gradient
    name = name_in_trace(
        kind,
        trace.sizes(inputs),
        dtype,
        trace.sizes(kernel),
        strides,
        padding,
        data_format,
        dilation_rate,
        plan,
        (edition, *trace.state()),
    )
    if name is None:
        return None
    inputs, kernel = ops.convert_to_tensor(inputs), ops.convert_to_tensor(kernel)
    if kind == DEPTHWISE:
        kernel = by_group(kernel)
    if kind == MATMUL:
        kernel = ops.reshape(kernel, (*(1,) * (len(inputs.shape) - 2), *kernel.shape))
    return trace.differentiable(name, inputs, kernel)


@backends.constant_in_trace
def name_in_trace(
    kind,
    input_shape,
    dtype,
    kernel_shape,
    strides,
    padding,
    data_format,
    dilation_rate,
    plan,
    guarded,
) -> str | None:
    """The name of a call's convolution, or `None` if it is stock's.

    Args:
        kind, input_shape, dtype, kernel_shape, strides, padding, data_format,
            dilation_rate: as in a `Call`.
        plan: the plan, as a tuple if it is a `Plan`.
        guarded: all else that the name depends on, for the trace to guard.
    """
    return dispatcher.name_in_trace(
        Call(
            kind=kind,
            input_shape=input_shape,
            dtype=dtype,
            kernel_shape=kernel_shape,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            plan=Plan(*plan) if isinstance(plan, tuple) else plan,
        )
    )


def with_shapes(inputs, kernel) -> tuple[Tensor, Tensor]:
    """A call's operands, with lists converted to tensors."""
    if hasattr(inputs, "shape") and hasattr(kernel, "shape"):
        return inputs, kernel
    return ops.convert_to_tensor(inputs), ops.convert_to_tensor(kernel)


def by_group(kernel) -> Tensor:
    """A depthwise kernel as that of a grouped convolution, one channel per group."""
    *kernel_size, channels, multiplier = kernel.shape
    return ops.reshape(kernel, (*kernel_size, 1, channels * multiplier))
