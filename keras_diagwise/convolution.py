"""The functional op: problem → plan → the three passes as one differentiable op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_diagwise import backends
from keras_diagwise.algorithms import dense_conv
from keras_diagwise.conductor import (
    GROUPED,
    LENGTH_OF_KEY,
    conductor,
    grouped_problem,
    is_symbolic,
)
from keras_diagwise.planning.plan import AUTO, Plan
from keras_diagwise.planning.planned_convolution import PlannedConvolution

Tensor = Any

stock_depthwise_conv = ops.depthwise_conv
native_conv = backends.active.native_conv
standardize_dtype = keras.backend.standardize_dtype
image_data_format = keras.config.image_data_format
traces_python = backends.active.traces_python
trace_key = backends.active.trace_key
shape_of = backends.active.shape_of
"""A name's every dot, and a call's every other function, is 0.1 to 0.7 µs more in
each eager call between real work, when nothing of ours is in the caches."""


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
    if data_format is None:
        data_format = image_data_format()
    if traces_python():
        arguments = strides, padding, data_format, dilation_rate
        name = look_up_in_trace(inputs, kernel, *arguments, plan)
        if name is None:
            return stock_depthwise_conv(inputs, kernel, *arguments)
        return run_in_trace(name, inputs, by_group(kernel))
    try:
        key = (
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
        convolution = conductor.memo[key]
    except AttributeError:  # lists, which have no shape
        inputs, kernel = map(ops.convert_to_tensor, (inputs, kernel))
        return depthwise_conv(
            inputs, kernel, strides, padding, data_format, dilation_rate, plan=plan
        )
    except (KeyError, TypeError):  # a new key, or a list in it
        convolution = conductor.convolution(inputs, kernel, key)
    if (
        convolution is None
        or is_symbolic(inputs, kernel)
        or backends.active.must_run_native()
    ):
        return stock_depthwise_conv(
            inputs, kernel, strides, padding, data_format, dilation_rate
        )
    inputs = ops.convert_to_tensor(inputs)
    kernel = ops.convert_to_tensor(kernel)
    if inputs.dtype != kernel.dtype:
        return stock_depthwise_conv(
            inputs, kernel, strides, padding, data_format, dilation_rate
        )
    kernel = ops.reshape(kernel, convolution.problem.kernel_shape)
    return backends.active.differentiable(convolution, inputs, kernel)


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
    group it is the stock operation, whatever the plan.

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
        `(batch, *output_shape, filters)`, or the same with the channels first.

    Raises:
        ValueError: if the shapes or arguments do not fit each other, or `plan`
            is not one, or its partition size does not fit the channels.

    Example:

    >>> x = np.ones((2, 8, 8, 8), "float32")
    >>> k = np.ones((3, 3, 2, 12), "float32")
    >>> conv(x, k, padding="same", plan="diagonal:4:split").shape
    (2, 8, 8, 12)
    """
    inputs, kernel = with_shapes(inputs, kernel)
    arguments = strides, padding, data_format or image_data_format(), dilation_rate
    found = look_up(inputs, kernel, *arguments, plan, GROUPED)
    if found is None:
        return native_conv(inputs, kernel, *arguments)
    return run(found, inputs, kernel)


def separable_conv(
    inputs: Tensor,
    depthwise_kernel: Tensor,
    pointwise_kernel: Tensor,
    strides: int | Sequence[int],
    padding: str,
    data_format: str,
    dilation_rate: int | Sequence[int],
    plan: str | Plan,
) -> Tensor:
    """Depthwise convolution by a plan, then pointwise convolution: what
    `keras.ops.separable_conv` computes, which it is where the plan is native."""
    arguments = strides, padding, data_format, dilation_rate
    found = look_up(inputs, depthwise_kernel, *arguments, plan)
    if found is None:
        return ops.separable_conv(
            inputs, depthwise_kernel, pointwise_kernel, *arguments
        )
    outputs = run(found, inputs, by_group(depthwise_kernel))
    if traces_python():
        return native_conv(outputs, pointwise_kernel, 1, "valid", data_format, 1)
    pointwise_kernel = ops.convert_to_tensor(pointwise_kernel)
    shape, dtype = shape_of(outputs), outputs.dtype
    pointwise = grouped_problem(
        shape, dtype, pointwise_kernel.shape, 1, "valid", data_format, 1
    )
    return dense_conv.forward(pointwise, outputs, pointwise_kernel)


def with_shapes(inputs, kernel) -> tuple[Tensor, Tensor]:
    """A call's operands, as tensors if they are lists."""
    if hasattr(inputs, "shape") and hasattr(kernel, "shape"):
        return inputs, kernel
    return ops.convert_to_tensor(inputs), ops.convert_to_tensor(kernel)


def look_up(
    inputs, kernel, strides, padding, data_format, dilation_rate, plan, *kind
) -> PlannedConvolution | str | None:
    """The convolution that a call runs, in a trace of Python code its name, or `None`
    if it is stock's."""
    if traces_python():
        arguments = strides, padding, data_format, dilation_rate
        return look_up_in_trace(inputs, kernel, *arguments, plan, *kind)
    key = (
        shape_of(inputs),
        inputs.dtype,
        shape_of(kernel),
        strides,
        padding,
        data_format,
        dilation_rate,
        plan,
        trace_key(),
        *kind,
    )
    try:
        found = conductor.memo[key]
    except (KeyError, TypeError):  # a new key, or a list in it
        found = conductor.convolution(inputs, kernel, key)
    if (
        found is None
        or is_symbolic(inputs, kernel)
        or backends.active.must_run_native()
        or not have_one_dtype(inputs, kernel)
    ):
        return None
    return found


def have_one_dtype(inputs, kernel) -> bool:
    """Whether a call's operands have the same dtype, variables as a layer sees them:
    what stock makes of two is the backend's."""
    return ops.convert_to_tensor(inputs).dtype == ops.convert_to_tensor(kernel).dtype


def look_up_in_trace(
    inputs, kernel, strides, padding, data_format, dilation_rate, plan, *kind
) -> str | None:
    """The name of the convolution that a call runs, or `None` if it is stock's, whose
    graph then holds nothing of the package's."""
    trace = backends.active.python_trace
    if trace is None:
        return None
    inputs, kernel = with_shapes(inputs, kernel)
    dtype = standardize_dtype(inputs.dtype)
    if dtype != standardize_dtype(kernel.dtype):
        return None
    if trace.is_open(strides, dilation_rate):
        return None
    edition = conductor.edition if plan == AUTO else ""
    if isinstance(plan, Plan):
        plan = plan.forward, plan.input_gradient, plan.kernel_gradient
    return name_in_trace(
        trace.sizes(inputs),
        dtype,
        trace.sizes(kernel),
        strides,
        padding,
        data_format,
        dilation_rate,
        plan,
        (edition, *trace.state()),
        *kind,
    )


@backends.constant_in_trace
def name_in_trace(*key) -> str | None:
    """From what a call is told apart by to its convolution's name."""
    *arguments, plan, edition = key[:LENGTH_OF_KEY]
    if isinstance(plan, tuple):
        plan = Plan(*plan)
    return conductor.name_in_trace((*arguments, plan, edition, *key[LENGTH_OF_KEY:]))


def run_in_trace(name: str, inputs, kernel) -> Tensor:
    """A call by its convolution's name."""
    inputs, kernel = ops.convert_to_tensor(inputs), ops.convert_to_tensor(kernel)
    return backends.active.python_trace.differentiable(name, inputs, kernel)


def run(convolution: PlannedConvolution | str, inputs, kernel) -> Tensor:
    """A call by its convolution, or in a trace of Python code by its name."""
    if isinstance(convolution, str):
        return run_in_trace(convolution, inputs, kernel)
    inputs, kernel = ops.convert_to_tensor(inputs), ops.convert_to_tensor(kernel)
    return backends.active.differentiable(convolution, inputs, kernel)


def by_group(kernel) -> Tensor:
    """A depthwise kernel as that of a grouped convolution, of one channel a group."""
    *kernel_size, channels, multiplier = kernel.shape
    return ops.reshape(kernel, (*kernel_size, 1, channels * multiplier))
