"""`matmul`: a dense convolution as products of matrices, pixels × channels by
channels × filters.

A compiler's dense convolution can be far slower than its matrix product, above all in
the kernel gradient of a 1×1 kernel, which is just such a product (XLA on CPUs).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

from keras import ops

from keras_diagwise import backends
from keras_diagwise.algorithms.algorithm import Algorithm, Work, check_lowering
from keras_diagwise.algorithms.dense_conv import turn_first, turn_last, turned
from keras_diagwise.algorithms.direct.input_gradient import input_gradient
from keras_diagwise.algorithms.direct.taps import (
    accumulated,
    padded_inputs,
    reaches_of,
    sum_written_out,
    window,
)
from keras_diagwise.problem import BYTES_PER_ELEMENT, Problem

MAX_TAPS = 64
"""Most taps: each is an operation, or a part of one, to compile."""

LOWERINGS = ("taps", "patches")


@dataclasses.dataclass(frozen=True)
class Matmul(Algorithm):
    """A dense convolution as a matrix product for each tap of the kernel.

    In float16 and bfloat16 the products are computed and summed in float32. They are
    the tensors' own `@`: on torch `ops.matmul` rounds float64 to float32 (Keras 3.15).

    Attributes:
        lowering: `"taps"` computes a product for each tap; `"patches"` lays the taps'
            pixels side by side (im2col) and computes one product, except in the input
            gradient, which is the same in both. For one tap they are the same.
    """

    lowering: str = "taps"

    name = "matmul"
    revision = 1

    def __post_init__(self):
        check_lowering(self.lowering, LOWERINGS)

    def forward(self, problem, inputs, kernel):
        if problem.data_format == "channels_first":
            return turn_first(self.forward(turned(problem), turn_last(inputs), kernel))
        padded = padded_inputs(problem, inputs)
        kernel = accumulated(kernel, problem)
        if self.lowering == "patches":
            weights = ops.reshape(kernel, (-1, problem.filters))
            outputs = multiply(problem, patches(problem, padded), weights)
        else:
            outputs = sum_written_out(
                problem,
                padded,
                kernel,
                reaches_of(problem),
                problem.output_spatial_shape,
                multiply,
            )
        return ops.cast(outputs, problem.dtype)

    def input_gradient(self, problem, kernel, output_gradient):
        if problem.data_format == "channels_first":
            gradient = turn_last(output_gradient)
            return turn_first(self.input_gradient(turned(problem), kernel, gradient))
        gradient = input_gradient(
            problem,
            accumulated(kernel, problem),
            accumulated(output_gradient, problem),
            multiply_transposed,
            sum_written_out,
        )
        return ops.cast(gradient, problem.dtype)

    def kernel_gradient(self, problem, inputs, output_gradient):
        if problem.data_format == "channels_first":
            operands = turn_last(inputs), turn_last(output_gradient)
            return self.kernel_gradient(turned(problem), *operands)
        padded = padded_inputs(problem, inputs)
        gradient = as_matrix(accumulated(output_gradient, problem))
        if self.lowering == "patches":
            seen = [patches(problem, padded)]
        else:
            seen = windows(problem, padded)
        taps = [ops.transpose(as_matrix(p)) @ gradient for p in seen]
        whole = taps[0] if len(taps) == 1 else ops.concatenate(taps)
        return ops.cast(ops.reshape(whole, problem.kernel_shape), problem.dtype)

    def refusal(self, problem):
        if not problem.is_dense:
            return "it is for dense convolutions"
        if not problem.has_static_spatial_shape:
            return "the spatial shape is not known"
        if 0 in problem.output_spatial_shape:
            return "the output is empty"
        if problem.taps > MAX_TAPS:
            return f"{problem.taps} taps are more than {MAX_TAPS}"
        return None

    @property
    def family(self):
        return f"{self.name}:{self.lowering}"

    def work(self, problem):
        times = 1 if self.lowering == "taps" else problem.taps
        pixels = (problem.batch or 1) * math.prod(problem.output_spatial_shape)
        laid_out = pixels * problem.channels * (times - 1)
        return Work(
            problem.flops,
            problem.least_bytes + BYTES_PER_ELEMENT[problem.dtype] * laid_out,
            problem.taps,
        )

    @classmethod
    def is_for(cls, device_kind):
        return device_kind == "cpu"

    @classmethod
    def is_offered(cls, device_kind: str, compiler_mode: str) -> bool:
        """Whether it is measured and served there: where a dense convolution was seen
        to be slower than its products. In torch's eager mode and TensorFlow's graph
        mode oneDNN's convolution is such a product."""
        return cls.is_for(device_kind) and compiler_mode == "xla"

    @classmethod
    def parse(cls, parameters):
        if len(parameters) > 1:
            text = ":".join((cls.name, *parameters))
            raise ValueError(
                "`matmul` takes a lowering, such as 'matmul:patches'. "
                f"Received: {text!r}"
            )
        return cls(*parameters)

    @classmethod
    def candidates(cls, problem, pass_name) -> Iterator[Matmul]:
        if not problem.is_dense or backends.computes_on_gpu():
            return
        yield cls()
        if problem.taps > 1 and pass_name != "input_gradient":
            yield cls("patches")

    def __str__(self):
        return self.name if self.lowering == LOWERINGS[0] else self.family


def windows(problem: Problem, padded) -> list:
    """The padded inputs that each tap reads, `(batch, *output, channels)`."""
    return [
        window(
            padded,
            problem,
            [each.start for each in reach],
            problem.output_spatial_shape,
        )
        for reach in itertools.product(*reaches_of(problem))
    ]


def patches(problem: Problem, padded):
    """The inputs of all taps side by side, `(batch, *output, taps * channels)`."""
    seen = windows(problem, padded)
    return seen[0] if len(seen) == 1 else ops.concatenate(seen, axis=-1)


def as_matrix(tensor):
    """A tensor with channels last as pixels × channels."""
    return ops.reshape(tensor, (-1, tensor.shape[-1]))


def multiply(problem: Problem, pixels, weights):
    """A term of the outputs.

    Args:
        problem: the problem, with its channels last.
        pixels: `(batch, *pixels, channels)`.
        weights: `(*ones, channels, filters)`.
    """
    return in_channels(pixels, ops.reshape(weights, weights.shape[-2:]))


def multiply_transposed(problem: Problem, gradient, weights):
    """A term of the input gradient: the transpose of `multiply`."""
    weights = ops.reshape(weights, (problem.channels, problem.filters))
    return in_channels(gradient, ops.transpose(weights))


def in_channels(pixels, matrix):
    """`matrix` applied to the channels of each pixel."""
    product = as_matrix(pixels) @ matrix
    return ops.reshape(product, (-1, *pixels.shape[1:-1], matrix.shape[-1]))
