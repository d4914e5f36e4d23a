"""The kernel gradient of `direct:columns`: the taps of a column of the kernel at once.

These see the same columns of pixels, so that nothing is padded beside the image: the
pixels that a tap would see there are left out, and so is the output gradient that
they would be multiplied with. Fewer taps are in a reduction than in `direct:rows`, of
more rows. All taps are written out.
"""

from __future__ import annotations

from keras import ops

from keras_diagwise import backends
from keras_diagwise.algorithms.blocks import (
    MOST_UNROLLED,
    Blocks,
    rows_of_a_block,
    take,
)

MOST_ROWS = 14
MOST_UNROLLED_IN_A_LOOP = 50
"""Rows × taps of one reduction in a loop over blocks, where the slices' starts are
computed as well: beyond it it runs 1.6 to 1.9 times as long as `direct:rows`, within it
0.5 to 1.1 times (jaxlib 0.10.2)."""
MOST_TAPS = 9


class Columns(Blocks):
    """Blocks that are padded above and below only."""

    loops_within = False

    @property
    def taps_at_once(self) -> list[range]:
        """The taps of a column of the kernel, grouped so that a reduction stays
        short."""
        height = self.problem.kernel_size[0]
        most = -(-height // -(-height // MOST_TAPS))
        return [range(i, min(i + most, height)) for i in range(0, height, most)]

    @property
    def rows_per_block(self) -> int:
        height = self.problem.output_spatial_shape[0]
        taps = max(map(len, self.taps_at_once))
        if height <= min(MOST_ROWS, MOST_UNROLLED // taps):
            return height
        most = max(2, min(MOST_ROWS, MOST_UNROLLED_IN_A_LOOP // taps))
        return rows_of_a_block(height, most)

    def padded(self, rows, before: int, after: int):
        rows = ops.cast(rows, self.dtype)
        if not before and not after:
            return rows
        return ops.pad(rows, ((0, 0), (before, after), (0, 0), (0, 0)))

    def add_block(self, block, gradient, offset, total):
        gradient = ops.cast(gradient, self.dtype)
        columns = [
            self.share(block, gradient, offset, column)
            for column in range(self.problem.kernel_size[1])
        ]
        share = columns[0] if len(columns) == 1 else ops.stack(columns, axis=1)
        shape = (self.problem.taps, -1, self.problem.channels)
        return total + ops.reshape(share, shape)

    def share(self, block, gradient, offset, column: int):
        """A block's share of the gradient of a column of the kernel, `(kernel_height,
        batch, channels)`."""
        problem = self.problem
        (down, across), (below, beside) = problem.strides, problem.dilation_rate
        start = column * beside - problem.padding_pairs[1][0]
        first = max(0, -(start // across))
        last = min(
            gradient.shape[2], (problem.spatial_shape[1] - 1 - start) // across + 1
        )
        if first >= last:
            nothing = ops.zeros_like(gradient[:, 0, 0])
            return ops.stack([nothing] * problem.kernel_size[0])
        gradient = gradient[:, :, first:last]
        sizes = ((gradient.shape[1] - 1) * down + 1, (last - first - 1) * across + 1)
        return ops.concatenate(
            [
                sums_of_pixels(
                    [
                        take(
                            block,
                            (offset + row * below, first * across + start),
                            sizes,
                        )[:, ::down, ::across]
                        * gradient
                        for row in taps
                    ]
                )
                for taps in self.taps_at_once
            ]
        )


def sums_of_pixels(products):
    """The sum of each product over its rows and columns, `(taps, batch, channels)`."""
    sums = backends.active.sum_together(products, axis=1)
    if len(sums) * sums[0].shape[1] <= MOST_UNROLLED:
        return ops.stack(backends.active.sum_together(sums, axis=1))
    return ops.stack([ops.sum(each, axis=1) for each in sums])
