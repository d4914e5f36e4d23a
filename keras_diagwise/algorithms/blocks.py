"""What the kernel gradients of `direct:rows` and `direct:columns` have in common: one
pass over blocks of output rows.

On XLA's CPU compiler a reduction becomes SIMD code over the channels only if its
loop is short enough to be unrolled, and one that reads the whole tensor for each
tap is bound by memory. So the rows are taken in blocks that stay in cache, and a
block's rows are summed for many taps in one reduction.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import NamedTuple

from keras import ops

from keras_diagwise.problem import Problem

MOST_UNROLLED = 72
"""Rows × taps of one reduction: LLVM unrolls a loop of about 300 instructions, and
a reduction that it does not unroll runs 5–10 times slower (jaxlib 0.10.2)."""


class Span(NamedTuple):
    """Rows of the input: `before` rows of zeros, the rows `start` to `stop`, and
    `after` rows of zeros."""

    before: int
    start: int
    stop: int
    after: int


@dataclasses.dataclass(frozen=True)
class Blocks(abc.ABC):
    """How the kernel gradient of a depthwise problem is summed, block by block.

    Attributes:
        problem: of rank 1 or 2, with channels last.
        dtype: what it is summed in.
    """

    problem: Problem
    dtype: str

    def kernel_gradient(self, inputs, output_gradient):
        """`(taps, filters)`."""
        problem = self.problem
        if problem.rank == 1:
            columns = dataclasses.replace(self, problem=with_columns(problem))
            return columns.kernel_gradient(
                inputs[:, :, None], output_gradient[:, :, None]
            )
        if problem.filters_per_group == 1:
            return ops.sum(self.by_image(inputs, output_gradient), axis=1)
        step = problem.filters_per_group
        single = dataclasses.replace(
            self, problem=dataclasses.replace(problem, filters_per_group=1)
        )
        parts = [
            single.kernel_gradient(inputs, output_gradient[..., m::step])
            for m in range(step)
        ]
        return ops.reshape(ops.stack(parts, axis=-1), (problem.taps, problem.filters))

    @property
    @abc.abstractmethod
    def loops_within(self) -> bool:
        """Whether a block is summed in a loop of its own."""

    @property
    @abc.abstractmethod
    def rows_per_block(self) -> int:
        """Output rows in a block."""

    @abc.abstractmethod
    def padded(self, rows, before: int, after: int):
        """Rows of the input as `add_block` takes them, with rows of zeros before and
        after."""

    @abc.abstractmethod
    def add_block(self, block, gradient, offset, total):
        """`total` and the share of a block: padded input rows, of which the
        first output row's begin at `offset`."""

    def by_image(self, inputs, output_gradient):
        """`(taps, batch, channels)`.

        The images stay apart: a sum over the batch in a loop would be one
        communication a block under data parallelism.
        """
        rows, height = self.rows_per_block, self.problem.output_spatial_shape[0]
        blocks = height // rows if height >= 2 * rows else 0
        total = 0
        if blocks or self.loops_within:
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
        return total

    def nothing(self, output_gradient):
        """What a loop begins with: zeros, `(taps, batch, channels)`, that are computed
        from the output gradient.

        Constants would be made at the beginning of a compiled step, and those of all
        layers would lie in memory together (28 MiB in a step of NASNetMobile, jaxlib
        0.10.2). A NaN stays one: it reaches all taps of its channel anyway.
        """
        corner = ops.cast(output_gradient[:, 0, 0], self.dtype)
        zeros = ops.minimum(ops.abs(corner), 0)
        shape = (self.problem.taps, ops.shape(corner)[0], self.problem.channels)
        return ops.broadcast_to(zeros[None], shape)

    def input_rows(self, first: int, last: int) -> Span:
        """What the output rows from `first` up to `last` see of the input."""
        problem = self.problem
        height, (top, _) = problem.spatial_shape[0], problem.padding_pairs[0]
        start = first * problem.strides[0] - top
        stop = (last - 1) * problem.strides[0] - top + problem.effective_kernel_size[0]
        low = min(max(start, 0), height)
        high = max(low, min(stop, height))
        return Span(low - start, low, high, stop - high)

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


def with_columns(problem: Problem) -> Problem:
    """A one-dimensional problem as a two-dimensional one of a single column."""
    return dataclasses.replace(
        problem,
        spatial_shape=(*problem.spatial_shape, 1),
        kernel_size=(*problem.kernel_size, 1),
        strides=(*problem.strides, 1),
        dilation_rate=(*problem.dilation_rate, 1),
    )


def rows_of_a_block(height: int, most: int) -> int:
    """How many of `height` rows are taken at once, if possible without a remainder."""
    if height <= most:
        return height
    sizes = range(most, max(most // 2, 2) - 1, -1)
    if any(height % size == 0 for size in sizes):
        return next(size for size in sizes if height % size == 0)
    if height < 2 * most:
        return -(-height // 2)
    return next((size for size in sizes if height % size != 1), most)


def take(tensor, start, sizes):
    """Rows and columns of all images, from a start that may be computed.

    One slice for each use: XLA compiles a computed slice that several taps share
    into a function of its own, without SIMD.
    """
    batch = -1 if tensor.shape[0] is None else tensor.shape[0]
    return ops.slice(tensor, (0, *start, 0), (batch, *sizes, tensor.shape[3]))
