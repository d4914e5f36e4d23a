"""The terms that `direct` sums: the contribution of one tap to each pass."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from typing import NamedTuple

from keras import ops

from keras_diagwise import backends
from keras_diagwise.problem import Problem


def accumulator(problem: Problem) -> str:
    """The dtype that the terms are summed in."""
    return "float32" if problem.dtype in ("bfloat16", "float16") else problem.dtype


def accumulated(tensor, problem: Problem):
    """`tensor` in the dtype that the terms are summed in."""
    return ops.cast(tensor, accumulator(problem))


def pad(tensor, problem: Problem, pairs):
    """`tensor` with zeros before and after it along each spatial axis."""
    if not any(itertools.chain.from_iterable(pairs)):
        return tensor
    widths = [(0, 0)] * (problem.rank + 2)
    for axis, pair in zip(problem.spatial_axes, pairs, strict=True):
        widths[axis] = pair
    return ops.pad(tensor, widths)


def padded_inputs(problem: Problem, inputs):
    """The zero-padded inputs, in the dtype that the terms are summed in."""
    return pad(accumulated(inputs, problem), problem, problem.padding_pairs)


class Reach(NamedTuple):
    """A tap along a spatial axis, and the first pixel that it reads."""

    tap: int
    start: int


def reaches_of(problem: Problem) -> list[list[Reach]]:
    """The taps along each spatial axis, and where they read the padded input."""
    extents = zip(problem.kernel_size, problem.dilation_rate, strict=True)
    return [[Reach(tap, tap * far) for tap in range(size)] for size, far in extents]


def sum_over_taps(problem: Problem, tensor, kernel, reaches, sizes, multiply):
    """The sum over taps of the terms that `multiply` computes.

    A kernel of many taps is looped over, one or a few rows at a time: unrolled, the
    pixels and weights of all taps compete for a few sets of the L1 cache, and take long
    to compile.

    Args:
        problem: the problem, whose strides are the distances between pixels.
        tensor: padded, `(batch, *pixels, channels)` in the data format.
        kernel: `(*kernel_size, channels_per_group, filters)`.
        reaches: the taps along each spatial axis, evenly spaced.
        sizes: number of pixels that a tap reads along each spatial axis.
        multiply: computes a tap's term from problem, pixels and weights.
    """
    rows, *columns = reaches
    row = math.prod([len(each) for each in columns])

    def sum_of_rows(rows):
        return sum_written_out(
            problem, tensor, kernel, [rows, *columns], sizes, multiply
        )

    at_once = rows_at_once(problem, row)
    if at_once >= len(rows):
        return sum_of_rows(rows)
    rest = len(rows) % at_once or at_once
    (tap, start), (next_tap, next_start) = rows[:2]

    def looped(i):
        return Reach(tap + i * (next_tap - tap), start + i * (next_start - start))

    def add(index, total):
        first = rest + index * at_once
        return total + sum_of_rows([looped(first + i) for i in range(at_once)])

    loops = (len(rows) - rest) // at_once
    return ops.fori_loop(0, loops, add, sum_of_rows(rows[:rest]))


def sum_written_out(problem: Problem, tensor, kernel, reaches, sizes, multiply):
    """`sum_over_taps` without a loop."""
    return sum_of_terms(
        multiply(
            problem,
            window(tensor, problem, [each.start for each in reach], sizes),
            weights(kernel, [each.tap for each in reach]),
        )
        for reach in itertools.product(*reaches)
    )


MAX_UNROLLED = 32
MAX_UNROLLED_ON_GPU = 50
TERMS_AT_ONCE = 8
"""Most terms (taps × channels in a group) to unroll: of a whole problem, and of an
iteration of a loop. On XLA's CPU compiler (jaxlib 0.10.2) a loop over rows takes 0.3 to
0.9 of the time for 7×7, 0.02 for 13×13, and 1.1 to 1.2 for 5×5. The phases of a stride
are fused into one program, so their taps count together: 0.1 to 0.3 of the time for the
input gradient of 7×7 with stride 2. On a GPU such a loop copies the padded input and
reads the copy in each iteration: ten times the least bytes (from code compiled by jax
0.11.2, not timed)."""


def is_written_out(problem: Problem) -> bool:
    """Whether all of a problem's terms are unrolled."""
    on_gpu = backends.computes_on_gpu()
    most = MAX_UNROLLED_ON_GPU if on_gpu else MAX_UNROLLED
    return problem.taps * problem.channels_per_group <= most


def rows_at_once(problem: Problem, taps: int) -> int:
    """Number of rows of a kernel or phase, with `taps` taps each, to unroll: all, or
    those of one iteration of the loop."""
    if is_written_out(problem):
        return problem.kernel_size[0]
    return max(1, TERMS_AT_ONCE // (taps * problem.channels_per_group))


def terms_written(problem: Problem) -> int:
    """Number of terms of a problem to compile: all, or those of the first rows and of
    the loop's body."""
    rows = problem.kernel_size[0]
    taps = problem.taps // rows
    at_once = rows_at_once(problem, taps)
    written = rows if at_once >= rows else 2 * at_once
    return taps * problem.channels_per_group * written


def window(tensor, problem: Problem, starts, sizes):
    """Every stride-th pixel of a padded tensor along the spatial axes.

    A computed start gets a separate slice for each use: XLA compiles one that several
    taps share into a separate function, without SIMD.

    Args:
        tensor: padded.
        problem: the problem, for its strides.
        starts: the first pixel along each spatial axis, an int or computed.
        sizes: number of pixels along each spatial axis.
    """
    axes = problem.spatial_axes
    spans = [(n - 1) * s + 1 for n, s in zip(sizes, problem.strides, strict=True)]
    index = [slice(None)] * (problem.rank + 2)
    cuts = list(zip(axes, starts, spans, problem.strides, strict=True))
    if all(isinstance(start, int) for start in starts):
        for axis, start, span, stride in cuts:
            index[axis] = slice(start, start + span, stride)
        return tensor[tuple(index)]
    corner, shape = [0] * len(index), [-1 if n is None else n for n in tensor.shape]
    for axis, start, span, stride in cuts:
        corner[axis], shape[axis] = start, span
        index[axis] = slice(None, None, stride)
    return ops.slice(tensor, corner, shape)[tuple(index)]


def weights(kernel, tap):
    """A tap's weights, `(*ones, channels_per_group, filters)`, at ints, or with a
    computed first index. The kernel's spatial axes stay, so that with the channels last
    the weights broadcast to the pixels with nothing more to compile."""
    if all(isinstance(each, int) for each in tap):
        return kernel[tuple(slice(each, each + 1) for each in tap)]
    shape = (*(1,) * len(tap), *kernel.shape[len(tap) :])
    return ops.slice(kernel, (*tap, 0, 0), shape)


def sum_of_terms(terms):
    """The sum, without the zero that Python's `sum` starts from.

    It uses the tensors' own `+`: on TensorFlow `ops.add` turns some additions into a
    bias addition, which fails on an empty batch (seen in Keras 3.15).
    """
    return functools.reduce(operator.add, terms)


def split_channels(tensor, problem: Problem, per_group: int):
    """`tensor` with its channels split into two axes, `(groups, per_group)`."""
    shape = list(tensor.shape)
    batch, axis = -1, problem.channel_axis
    return ops.reshape(
        tensor, (batch, *shape[1:axis], problem.groups, per_group, *shape[axis + 1 :])
    )


def merge_channels(tensor, problem: Problem):
    """The inverse of `split_channels`."""
    shape = list(tensor.shape)
    axis = problem.channel_axis
    merged = shape[axis] * shape[axis + 1]
    return ops.reshape(tensor, (-1, *shape[1:axis], merged, *shape[axis + 2 :]))


def along_channels(weights, problem: Problem, axes: int = 1):
    """Weights of the last `axes` axes, shaped to multiply inputs or outputs."""
    if problem.data_format == "channels_last":
        return weights
    return ops.reshape(weights, (*weights.shape[-axes:], *(1,) * problem.rank))


def multiply_forward(problem: Problem, inputs, weights):
    """A tap's term of the outputs.

    Args:
        inputs: the tap's pixels, `(batch, *pixels, channels)` in the data format.
        weights: `(*ones, channels_per_group, filters)`.
    """
    if problem.is_depthwise and problem.filters_per_group == 1:
        return ops.multiply(inputs, along_channels(weights, problem))
    inputs = split_channels(inputs, problem, problem.channels_per_group)
    weights = ops.reshape(weights, (-1, problem.groups, problem.filters_per_group))
    position = problem.channel_axis + 1
    terms = sum_of_terms(
        ops.multiply(
            keep_one(inputs, position, i), along_channels(weights[i], problem, 2)
        )
        for i in range(problem.channels_per_group)
    )
    return merge_channels(terms, problem)


def multiply_backward(problem: Problem, gradient, weights):
    """A tap's term of the input gradient: the transpose of `multiply_forward`."""
    if problem.is_depthwise and problem.filters_per_group == 1:
        return ops.multiply(gradient, along_channels(weights, problem))
    gradient = split_channels(gradient, problem, problem.filters_per_group)
    weights = ops.reshape(weights, (-1, problem.groups, problem.filters_per_group))
    axis = problem.channel_axis + 1
    columns = [
        ops.sum(
            ops.multiply(gradient, along_channels(weights[i], problem, 2)), axis=axis
        )
        for i in range(problem.channels_per_group)
    ]
    if len(columns) == 1:
        return columns[0]
    return merge_channels(ops.stack(columns, axis=axis), problem)


def multiply_and_reduce(problem: Problem, inputs, gradient):
    """A tap's row of the kernel gradient, `(channels_per_group, filters)`."""
    batch_and_pixels = (0, *problem.spatial_axes)
    if problem.is_depthwise and problem.filters_per_group == 1:
        return ops.sum(ops.multiply(inputs, gradient), axis=batch_and_pixels)[None]
    inputs = split_channels(inputs, problem, problem.channels_per_group)
    gradient = split_channels(gradient, problem, problem.filters_per_group)
    axis = problem.channel_axis
    if problem.data_format == "channels_last":
        batch_and_pixels = tuple(range(axis))
    else:
        batch_and_pixels = (0, *range(axis + 2, axis + 2 + problem.rank))
    rows = [
        ops.sum(
            ops.multiply(keep_one(inputs, axis + 1, i), gradient),
            axis=batch_and_pixels,
        )
        for i in range(problem.channels_per_group)
    ]
    return ops.reshape(ops.stack(rows), (problem.channels_per_group, problem.filters))


def keep_one(tensor, axis: int, index: int):
    """The slice of one element along `axis`, which is kept."""
    return tensor[(slice(None),) * axis + (slice(index, index + 1),)]
