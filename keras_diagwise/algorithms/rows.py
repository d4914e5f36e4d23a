"""The kernel gradient of `direct:rows`: as many taps of a block of rows at once as a
reduction holds, the rows of a large kernel in a loop."""

from __future__ import annotations

import itertools

from keras import ops

from keras_diagwise import backends
from keras_diagwise.algorithms.blocks import (
    MOST_UNROLLED,
    Blocks,
    rows_of_a_block,
    take,
)

MOST_ROWS = 8
MOST_TAPS = MOST_UNROLLED // MOST_ROWS


class Rows(Blocks):
    """Blocks that are padded on all sides, so that all taps see the same pixels."""

    @property
    def taps_at_once(self) -> list[list[tuple[int, ...]]]:
        """The taps, grouped so that a reduction stays short."""
        taps = list(itertools.product(*map(range, self.problem.kernel_size)))
        return [taps[i : i + MOST_TAPS] for i in range(0, len(taps), MOST_TAPS)]

    @property
    def loops_within(self) -> bool:
        """Whether a large kernel's rows are looped over, which compiles in a
        fraction of the time of writing out all of its taps."""
        height, width = self.problem.kernel_size
        return height > 1 and width > 1 and height * width > MOST_TAPS

    @property
    def columns_at_once(self) -> list[range]:
        """The taps of a kernel's row, grouped so that a reduction stays short."""
        width = self.problem.kernel_size[1]
        if width <= MOST_TAPS + 3:
            return [range(width)]
        most = -(-width // -(-width // MOST_TAPS))
        return [range(i, min(i + most, width)) for i in range(0, width, most)]

    @property
    def rows_per_block(self) -> int:
        largest = max(map(len, self.taps_at_once))
        if self.loops_within:
            largest = max(map(len, self.columns_at_once))
        most = max(2, min(MOST_ROWS, MOST_UNROLLED // largest))
        return rows_of_a_block(self.problem.output_spatial_shape[0], most)

    def padded(self, rows, before: int, after: int):
        columns = self.problem.padding_pairs[1]
        rows = ops.cast(rows, self.dtype)
        if not before and not after and not any(columns):
            return rows
        return ops.pad(rows, ((0, 0), (before, after), columns, (0, 0)))

    def add_block(self, block, gradient, offset, total):
        gradient = ops.cast(gradient, self.dtype)
        if not self.loops_within:
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
        """A block's share of the gradient of some taps, `(taps, batch, channels)`."""
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
        if rows * columns <= MOST_ROWS + 1:
            shape = (-1, rows * columns, 1, self.problem.channels)
            products = [ops.reshape(product, shape) for product in products]
        sums = backends.active.sum_together(products, axis=1)
        return ops.stack([ops.sum(each, axis=1) for each in sums])


def take_first(tensor, start, size):
    """Elements of the first axis, from a start that may be computed."""
    rest = [-1 if n is None else n for n in tensor.shape[1:]]
    return ops.slice(tensor, (start, 0, 0), (size, *rest))
