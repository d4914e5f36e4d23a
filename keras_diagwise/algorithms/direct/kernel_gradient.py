"""The kernel gradient of `direct`: a reduction for each tap, or, as `direct:rows`, one
pass over blocks of output rows for all taps at once.

XLA's CPU compiler turns a reduction into SIMD code over the channels only if its loop
is short enough to be unrolled, and one that reads the whole tensor for each tap is
memory-bound. So the rows are processed in blocks that stay in cache, and a block's rows
are summed for many taps in one reduction.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import NamedTuple

from keras import ops

from keras_diagwise import backends
from keras_diagwise.algorithms.direct.taps import (
    Reach,
    accumulator,
    is_written_out,
    multiply_and_reduce,
    reaches_of,
    window,
)
from keras_diagwise.problem import Problem

MAX_ROWS = 8
MAX_UNROLLED = 72
"""Rows × taps of one reduction: LLVM unrolls a loop of about 300 instructions, and
a reduction that is not unrolled runs 5–10 times slower (jaxlib 0.10.2)."""
MAX_TAPS = MAX_UNROLLED // MAX_ROWS
MAX_SUMMED_TOGETHER = 144
"""Most taps × columns of a block's row sums that one fused program sums: 0.6 to 0.9 of
the time of a library call for each tap, and 1.1 to 1.2 beyond it (jaxlib 0.10.2)."""


def by_taps(problem: Problem, padded, gradient):
    """The kernel gradient, a reduction for each tap, in a loop over the rows of a large
    kernel."""
    rows, *columns = reaches_of(problem)
    row = list(itertools.product(*columns))

    def reduced(first):
        pixels = (
            window(
                padded,
                problem,
                (first.start, *(each.start for each in rest)),
                problem.output_spatial_shape,
            )
            for rest in row
        )
        return ops.stack([multiply_and_reduce(problem, p, gradient) for p in pixels])

    if is_written_out(problem):
        return ops.stack([reduced(first) for first in rows])

    def add(i, total):
        share = reduced(Reach(i, i * problem.dilation_rate[0]))
        return ops.slice_update(total, (i, 0, 0, 0), share[None])

    shape = (len(rows), len(row), problem.channels_per_group, problem.filters)
    return ops.fori_loop(0, len(rows), add, ops.zeros(shape, accumulator(problem)))


def by_rows(problem: Problem, inputs, output_gradient, dtype: str):
    """The kernel gradient of a depthwise problem with channels last, rank 1 or 2,
    summed in `dtype`.

    Returns:
        `(taps, filters)`.
    """
    if problem.rank == 1:
        problem = with_columns(problem)
        inputs, output_gradient = inputs[:, :, None], output_gradient[:, :, None]
    if problem.filters_per_group == 1:
        return Rows(problem, dtype).kernel_gradient(inputs, output_gradient)
    single = dataclasses.replace(problem, filters_per_group=1)
    step = problem.filters_per_group
    columns = [
        Rows(single, dtype).kernel_gradient(inputs, output_gradient[..., m::step])
        for m in range(step)
    ]
    return ops.reshape(ops.stack(columns, axis=-1), (problem.taps, problem.filters))


def with_columns(problem: Problem) -> Problem:
    """A one-dimensional problem as a two-dimensional one with a single column."""
    return dataclasses.replace(
        problem,
        spatial_shape=(*problem.spatial_shape, 1),
        kernel_size=(*problem.kernel_size, 1),
        strides=(*problem.strides, 1),
        dilation_rate=(*problem.dilation_rate, 1),
    )


class Span(NamedTuple):
    """Rows of the input: `before` rows of zeros, the rows `start` to `stop`, and
    `after` rows of zeros."""

    before: int
    start: int
    stop: int
    after: int


@dataclasses.dataclass(frozen=True)
class Rows:
    """A two-dimensional depthwise problem, cut into blocks of rows."""

    problem: Problem
    dtype: str

    def kernel_gradient(self, inputs, output_gradient):
        """`(taps, channels)`."""
        problem, rows = self.problem, self.rows_per_block
        height = problem.output_spatial_shape[0]
        blocks = height // rows if height >= 2 * rows else 0
        total = 0
        if blocks or self.loops_over_kernel_rows:
            total = self.nothing(output_gradient)
        if blocks:
            total = self.loop_over_blocks(inputs, output_gradient, blocks, total)
        for first in range(blocks * rows, height, rows):
            last = min(first + rows, height)
            span = self.input_rows(first, last)
            block = self.padded(
                inputs[:, span.start : span.stop], span.before, span.after
            )
            total = self.add_block(block, output_gradient[:, first:last], 0, total)
        return ops.sum(total, axis=1)

    def nothing(self, output_gradient):
        """The initial value of a loop: zeros, `(taps, batch, channels)`, computed from
        the output gradient.

        Constants would be created at the beginning of a compiled step, and those of all
        layers would be in memory at once (28 MiB in a step of NASNetMobile, jaxlib
        0.10.2). A NaN stays NaN: it reaches all taps of its channel anyway.
        """
        corner = ops.cast(output_gradient[:, 0, 0], self.dtype)
        # `minimum` of a float64 tensor and a number is float32 in Keras on torch.
        zeros = ops.cast(ops.minimum(ops.abs(corner), 0), self.dtype)
        shape = (self.problem.taps, ops.shape(corner)[0], self.problem.channels)
        return ops.broadcast_to(zeros[None], shape)

    @property
    def taps_at_once(self) -> list[list[tuple[int, ...]]]:
        """The taps, in groups that keep a reduction short."""
        taps = list(itertools.product(*map(range, self.problem.kernel_size)))
        return [taps[i : i + MAX_TAPS] for i in range(0, len(taps), MAX_TAPS)]

    @property
    def loops_over_kernel_rows(self) -> bool:
        """Whether a large kernel's rows are looped over, which compiles in a fraction
        of the time of unrolling all of its taps."""
        height, width = self.problem.kernel_size
        return height > 1 and width > 1 and height * width > MAX_TAPS

    @property
    def columns_at_once(self) -> list[range]:
        """The taps of a kernel's row, in groups that keep a reduction short."""
        width = self.problem.kernel_size[1]
        if width <= MAX_TAPS + 3:
            return [range(width)]
        most = -(-width // -(-width // MAX_TAPS))
        return [range(i, min(i + most, width)) for i in range(0, width, most)]

    @property
    def rows_per_block(self) -> int:
        """Output rows in a block, if possible without a remainder."""
        height = self.problem.output_spatial_shape[0]
        largest = max(map(len, self.taps_at_once))
        if self.loops_over_kernel_rows:
            largest = max(map(len, self.columns_at_once))
        if height <= MAX_UNROLLED // largest:
            return height
        most = max(2, min(MAX_ROWS, MAX_UNROLLED // largest))
        sizes = range(most, max(most // 2, 2) - 1, -1)
        if any(height % size == 0 for size in sizes):
            return next(size for size in sizes if height % size == 0)
        if height < 2 * most:
            return -(-height // 2)
        return next((size for size in sizes if height % size != 1), most)

    def input_rows(self, first: int, last: int) -> Span:
        """The input rows that the output rows from `first` up to `last` read."""
        problem = self.problem
        height, (top, _) = problem.spatial_shape[0], problem.padding_pairs[0]
        start = first * problem.strides[0] - top
        stop = (last - 1) * problem.strides[0] - top + problem.effective_kernel_size[0]
        low = min(max(start, 0), height)
        high = max(low, min(stop, height))
        return Span(low - start, low, high, stop - high)

    def padded(self, rows, before: int, after: int):
        columns = self.problem.padding_pairs[1]
        rows = ops.cast(rows, self.dtype)
        if not before and not after and not any(columns):
            return rows
        return ops.pad(rows, ((0, 0), (before, after), columns, (0, 0)))

    def loop_over_blocks(self, inputs, output_gradient, blocks: int, total):
        problem, rows = self.problem, self.rows_per_block
        height, width = problem.spatial_shape
        top, stride = problem.padding_pairs[0][0], problem.strides[0]
        needed = (rows - 1) * stride + problem.effective_kernel_size[0]
        taken = min(needed, height)
        below = max(0, (blocks - 1) * rows * stride - top + needed - height)

        def add(index, total):
            first = index * (rows * stride) - top
            start = ops.minimum(ops.maximum(first, 0), height - taken)
            block = take(inputs, (start, 0), (taken, width))
            block = self.padded(block, top, below)
            gradient = take(
                output_gradient, (index * rows, 0), (rows, output_gradient.shape[2])
            )
            return self.add_block(block, gradient, first - start + top, total)

        return ops.fori_loop(0, blocks, add, total)

    def add_block(self, block, gradient, offset, total):
        """`total` plus the share of a block of padded input rows, in which those of the
        first output row begin at `offset`."""
        gradient = ops.cast(gradient, self.dtype)
        if not self.loops_over_kernel_rows:
            shares = [
                self.share(block, gradient, offset, taps) for taps in self.taps_at_once
            ]
            return total + ops.concatenate(shares)
        height, width = self.problem.kernel_size

        def add_kernel_row(i, total):
            below = offset + i * self.problem.dilation_rate[0]
            shares = [
                self.share(block, gradient, below, [(0, j) for j in columns])
                for columns in self.columns_at_once
            ]
            share = shares[0] if len(shares) == 1 else ops.concatenate(shares)
            before = take_first(total, i * width, width)
            return ops.slice_update(total, (i * width, 0, 0), before + share)

        return ops.fori_loop(0, height, add_kernel_row, total)

    def share(self, block, gradient, offset, taps):
        """A block's share of the gradient of some taps, `(taps, batch, channels)`.

        The images stay separate: under data parallelism, a sum over the batch in the
        loop would communicate once per block.
        """
        (down, across), (below, beside) = (
            self.problem.strides,
            self.problem.dilation_rate,
        )
        rows, columns = gradient.shape[1:3]
        sizes = ((rows - 1) * down + 1, (columns - 1) * across + 1)
        products = [
            take(block, (offset + i * below, j * beside), sizes)[:, ::down, ::across]
            * gradient
            for i, j in taps
        ]
        if rows * columns <= MAX_ROWS + 1:
            shape = (-1, rows * columns, 1, self.problem.channels)
            products = [ops.reshape(product, shape) for product in products]
        sums = backends.active.sum_together(products, axis=1)
        if len(sums) * sums[0].shape[1] <= MAX_SUMMED_TOGETHER:
            return ops.stack(backends.active.sum_together(sums, axis=1))
        return ops.stack([ops.sum(each, axis=1) for each in sums])


def take(tensor, start, sizes):
    """Rows and columns of all images, from a start that may be computed.

    One slice for each use: XLA compiles a computed slice that several taps share into
    a separate function, without SIMD.
    """
    batch = -1 if tensor.shape[0] is None else tensor.shape[0]
    return ops.slice(tensor, (0, *start, 0), (batch, *sizes, tensor.shape[3]))


def take_first(tensor, start, size):
    """Elements of the first axis, from a start that may be computed."""
    rest = [-1 if n is None else n for n in tensor.shape[1:]]
    return ops.slice(tensor, (start, 0, 0), (size, *rest))
