"""A call of the package's operations, and the problem that it poses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from keras_diagwise import backends
from keras_diagwise.plan import Plan
from keras_diagwise.problem import Problem, check_data_format

DEPTHWISE = "depthwise"
GROUPED = "grouped"
MATMUL = "matmul"


@dataclasses.dataclass(frozen=True)
class Call:
    """The arguments of a call, with shapes and a dtype in place of the operands.

    Attributes:
        kind: `DEPTHWISE`, a call of `depthwise_conv`; `GROUPED`, of `conv`; or
            `MATMUL`, of `dense`.
        input_shape: shape of the inputs, `None` for sizes that a trace leaves open.
        dtype: dtype of the inputs, as the backend represents it.
        kernel_shape: shape of the kernel: `(*kernel_size, channels, depth_multiplier)`
            or `(*kernel_size, channels_per_group, filters)` or `(channels, units)`.
        strides: one stride, or one for each spatial axis.
        padding: `"valid"` or `"same"`.
        data_format: `"channels_last"` or `"channels_first"`.
        dilation_rate: one dilation, or one for each spatial axis.
        plan: `"auto"`, an algorithm for all three passes, or a `Plan`.
    """

    kind: str
    input_shape: Sequence[int | None]
    dtype: Any
    kernel_shape: Sequence[int]
    strides: int | Sequence[int]
    padding: str
    data_format: str
    dilation_rate: int | Sequence[int]
    plan: str | Plan

    @property
    def has_known_sizes(self) -> bool:
        """Whether the channels of the inputs are known, and the kernel's shape; true
        also of an invalid shape, which `problem` refuses."""
        if None in self.kernel_shape:
            return False
        channels_first = self.data_format == "channels_first"
        shape = self.input_shape
        return len(shape) < 2 or shape[1 if channels_first else -1] is not None

    @property
    def problem(self) -> Problem:
        """The problem that the call poses on one device.

        Raises:
            ValueError: if the arguments do not fit each other.
        """
        return on_one_device(
            PROBLEM_OF[self.kind](
                self.input_shape,
                self.dtype,
                self.kernel_shape,
                self.strides,
                self.padding,
                self.data_format,
                self.dilation_rate,
            )
        )


def grouped_problem(
    input_shape, dtype, kernel_shape, strides, padding, data_format, dilation_rate
) -> Problem:
    """The problem of a call of `conv`.

    Raises:
        ValueError: if the arguments do not fit each other.
    """
    return Problem.from_shapes(
        input_shape,
        kernel_shape,
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilation_rate=dilation_rate,
        dtype=keras.backend.standardize_dtype(dtype),
    )


def depthwise_problem(
    input_shape, dtype, kernel_shape, strides, padding, data_format, dilation_rate
) -> Problem:
    """The problem of a call of `depthwise_conv`.

    Raises:
        ValueError: if the arguments do not fit each other.
    """
    check_data_format(data_format)
    if len(input_shape) < 3 or len(kernel_shape) != len(input_shape):
        raise ValueError(
            "`inputs` and `kernel` must have the same number of axes, 3 or more. "
            f"Received: inputs.shape={tuple(input_shape)}, "
            f"kernel.shape={tuple(kernel_shape)}"
        )
    *kernel_size, channels, depth_multiplier = kernel_shape
    received = input_shape[-1 if data_format == "channels_last" else 1]
    if received != channels:
        raise ValueError(
            f"The number of channels of `inputs` (={received}) must equal the "
            f"kernel's (={channels}). Received: inputs.shape={tuple(input_shape)}, "
            f"kernel.shape={tuple(kernel_shape)}, data_format={data_format!r}"
        )
    grouped_shape = (*kernel_size, 1, channels * depth_multiplier)
    return grouped_problem(
        input_shape, dtype, grouped_shape, strides, padding, data_format, dilation_rate
    )


def dense_layer_problem(
    input_shape,
    dtype,
    kernel_shape,
    strides=1,
    padding="valid",
    data_format="channels_last",
    dilation_rate=1,
) -> Problem:
    """The problem of a call of `dense`, which has no more arguments than its operands.

    Raises:
        ValueError: if these do not fit each other.
    """
    dtype = keras.backend.standardize_dtype(dtype)
    return Problem.of_dense_layer(input_shape, kernel_shape, dtype=dtype)


PROBLEM_OF = {
    DEPTHWISE: depthwise_problem,
    GROUPED: grouped_problem,
    MATMUL: dense_layer_problem,
}


def is_left_to_stock(problem: Problem) -> bool:
    """Whether `conv` or `dense` is stock's for a problem, whatever the plan: one with a
    single channel, for which `native` is Keras's depthwise operation."""
    return problem.channels == 1


def on_one_device(problem: Problem, shards: int | None = None) -> Problem:
    """The problem with the share of the batch that one device sees.

    Args:
        problem: the problem of the whole batch.
        shards: number of devices that share it; `None` for those of the trace.
    """
    if shards is None:
        shards = backends.active.batch_shards()
    if shards == 1 or problem.batch is None:
        return problem
    return dataclasses.replace(problem, batch=max(1, problem.batch // shards))


def is_symbolic(inputs, kernel) -> bool:
    """Whether Keras only infers shapes."""
    return (
        isinstance(inputs, keras.KerasTensor)
        or isinstance(kernel, keras.KerasTensor)
        or backends.keras_internals.in_symbolic_scope()
    )
