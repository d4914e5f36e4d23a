"""The input gradient of `direct`, one phase of the stride at a time.

With a stride, only some of the taps reach an input pixel, depending on its position
modulo the stride. Each such phase is a stride-1 convolution of the output gradient with
its own taps; the results of the phases are then interleaved. No multiplication is
wasted on the zeros that a stride would put between the pixels of the output gradient.
"""

from __future__ import annotations

import dataclasses

from keras import ops

from keras_diagwise.algorithms.direct.taps import (
    Reach,
    multiply_backward,
    pad,
    sum_over_taps,
    window,
)
from keras_diagwise.problem import Problem


def input_gradient(
    problem: Problem,
    kernel,
    output_gradient,
    multiply=multiply_backward,
    add_up=sum_over_taps,
):
    """The input gradient, in the dtype of its operands.

    Args:
        problem: the problem.
        kernel: `(*kernel_size, channels_per_group, filters)`.
        output_gradient: in the shape of the outputs.
        multiply: computes a tap's term from problem, pixels and weights.
        add_up: sums the terms, as `sum_over_taps`.
    """
    axes = range(problem.rank)
    reaches = [
        [reach(problem, axis, r) for r in phases(problem, axis)] for axis in axes
    ]
    sizes = [phase_size(problem, axis) for axis in axes]
    pairs = [
        padding_pair(reaches[axis], sizes[axis], problem.output_spatial_shape[axis])
        for axis in axes
    ]
    padded = pad(output_gradient, problem, pairs)
    unstrided = dataclasses.replace(problem, strides=(1,) * problem.rank)

    def phase(index: tuple[int, ...]):
        """The gradient at the pixels of one phase along each axis."""
        reaching = [reaches[axis][index[axis]] for axis in axes]
        if not all(reaching):
            start = tuple(before for before, _ in pairs)
            pixels = window(padded, unstrided, start, sizes)
            nothing = ops.zeros(problem.kernel_shape[problem.rank :], kernel.dtype)
            # Zeros, not a product with zero: infinity times zero is NaN.
            return ops.zeros_like(multiply(problem, pixels, nothing))
        in_padded = [
            [Reach(tap, pairs[axis][0] + start) for tap, start in reaching[axis]]
            for axis in axes
        ]
        return add_up(unstrided, padded, kernel, in_padded, sizes, multiply)

    return interleaved(problem, phase)


def phases(problem: Problem, axis: int) -> range:
    """The phases along a spatial axis that have a pixel."""
    return range(min(problem.strides[axis], problem.spatial_shape[axis]))


def phase_size(problem: Problem, axis: int) -> int:
    """Pixels of the largest phase along a spatial axis."""
    return -(-problem.spatial_shape[axis] // problem.strides[axis])


def reach(problem: Problem, axis: int, phase: int) -> list[Reach]:
    """The taps along a spatial axis that reach the pixels `phase`, `phase` + stride, …:
    those for which the output pixel is a whole number, counted from the first of the
    phase."""
    stride, dilation = problem.strides[axis], problem.dilation_rate[axis]
    before = problem.padding_pairs[axis][0]
    distances = [
        (tap, phase + before - tap * dilation)
        for tap in range(problem.kernel_size[axis])
    ]
    return [Reach(tap, d // stride) for tap, d in distances if d % stride == 0]


def padding_pair(
    reaches: list[list[Reach]], size: int, outputs: int
) -> tuple[int, int]:
    """The zeros around the output gradient with which every tap of every phase reads
    `size` pixels."""
    offsets = [0, *(each.start for reaching in reaches for each in reaching)]
    return max(0, -min(offsets)), max(0, max(offsets) + size - outputs)


def interleaved(problem: Problem, phase, index: tuple[int, ...] = ()):
    """The phases' pixels interleaved, along the axes that `index` leaves open."""
    axis = len(index)
    if axis == problem.rank:
        return phase(index)
    parts = [interleaved(problem, phase, (*index, r)) for r in phases(problem, axis)]
    if len(parts) == 1:
        return parts[0]
    position = problem.spatial_axes[axis]
    shape = [-1 if n is None else n for n in parts[0].shape]
    shape[0] = -1
    shape[position] *= len(parts)
    pixels = ops.reshape(ops.stack(parts, axis=position + 1), shape)
    whole = slice(0, problem.spatial_shape[axis])
    return pixels[(slice(None),) * position + (whole,)]
