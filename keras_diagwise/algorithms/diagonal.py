"""`diagonal`: the kernel laid out block-diagonally and run as dense convolution.

Qin et al., "Diagonalwise Refactorization: An Efficient Training Method for
Depthwise Convolutions", IJCNN 2018, arXiv 1803.09926.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import keras
from keras import ops

from keras_diagwise import backends
from keras_diagwise.algorithms import dense_conv
from keras_diagwise.algorithms.algorithm import Algorithm, Work, check_lowering
from keras_diagwise.problem import BYTES_PER_ELEMENT, Problem

LOWERINGS = ("grouped", "split")
PAPER_PARTITION_SIZE = 32


class Segment(NamedTuple):
    """Neighbouring groups computed by one convolution, `merged` of them in a block."""

    first_group: int
    groups: int
    merged: int


@dataclasses.dataclass(frozen=True)
class Diagonal(Algorithm):
    """The block-diagonal kernel, run as dense convolution.

    Neighbouring groups are merged into blocks of `partition_size` channels whose
    dense kernel is zero off the diagonal. A value times these zeros adds nothing,
    unless it is infinite or NaN: then it spreads to the other channels of its block.

    Attributes:
        partition_size: input channels in a block, a multiple of the channels in a
            group; the last block is smaller if it does not divide the channels. `None`
            is the paper's 32, or all channels if there are fewer.
        lowering: `"grouped"` runs one convolution with feature groups, `"split"`
            a dense convolution for each block.
    """

    partition_size: int | None = None
    lowering: str = "grouped"

    name = "diagonal"
    revision = 1

    def __post_init__(self):
        size = self.partition_size
        if size is not None and (type(size) is not int or size < 1):
            raise ValueError(
                "`partition_size` must be an int from 1 to the number of channels. "
                f"Received: partition_size={size!r}"
            )
        check_lowering(self.lowering, LOWERINGS)

    def forward(self, problem, inputs, kernel):
        channels = [
            dense_conv.forward(
                block_problem(problem, segment),
                slice_groups(inputs, problem, segment, problem.channels_per_group),
                block_diagonal(slice_kernel(kernel, problem, segment), segment),
            )
            for segment in self.segments(problem)
        ]
        return concatenate(channels, problem.channel_axis)

    def input_gradient(self, problem, kernel, output_gradient):
        channels = [
            dense_conv.input_gradient(
                block_problem(problem, segment),
                block_diagonal(slice_kernel(kernel, problem, segment), segment),
                slice_groups(
                    output_gradient, problem, segment, problem.filters_per_group
                ),
            )
            for segment in self.segments(problem)
        ]
        return concatenate(channels, problem.channel_axis)

    def kernel_gradient(self, problem, inputs, output_gradient):
        filters = [
            read_diagonal(
                dense_conv.kernel_gradient(
                    block_problem(problem, segment),
                    slice_groups(inputs, problem, segment, problem.channels_per_group),
                    slice_groups(
                        output_gradient, problem, segment, problem.filters_per_group
                    ),
                ),
                segment,
            )
            for segment in self.segments(problem)
        ]
        return concatenate(filters, -1)

    def segments(self, problem: Problem) -> list[Segment]:
        """The convolutions that compute `problem`."""
        return [
            first._replace(first_group=first.first_group + i * first.groups)
            for first, count in self.kinds(problem).items()
            for i in range(count)
        ]

    def kinds(self, problem: Problem) -> dict[Segment, int]:
        """The first segment of each shape, and the number of segments of that shape."""
        size = self.partition_size or min(PAPER_PARTITION_SIZE, problem.channels)
        merged = max(1, size // problem.channels_per_group)
        remainder = problem.groups % merged
        whole = problem.groups - remainder
        each = whole if self.lowering == "grouped" else merged
        kinds = {Segment(0, each, merged): whole // each}
        if remainder:
            kinds[Segment(whole, remainder, remainder)] = 1
        return kinds

    def refusal(self, problem):
        if not problem.has_static_spatial_shape:
            return "the spatial shape is not known"
        if 0 in problem.output_spatial_shape:
            return "the output is empty"
        if problem.is_dense:
            return "it is dense already"
        if backends.active.batch_shards() > 1:
            # XLA's partitioner gathers the batch for a grouped convolution, and sums
            # the dense kernel's gradient over the devices (seen in jaxlib 0.10.2).
            return "it would add communication between the devices"
        for segment in self.kinds(problem):
            reason = dense_conv.refusal(block_problem(problem, segment))
            if reason:
                return reason
        return None

    @property
    def family(self):
        return f"{self.name}:{self.lowering}"

    def work(self, problem):
        kinds = self.kinds(problem).items()
        blocks = [(block_problem(problem, each), count) for each, count in kinds]
        filled = sum(math.prod(each.kernel_shape) * n for each, n in blocks)
        kernels = BYTES_PER_ELEMENT[problem.dtype] * filled
        return Work(
            flops=sum(each.flops * n for each, n in blocks),
            bytes=problem.least_bytes + kernels,
            operations=sum(n for _, n in blocks),
        )

    def check(self, problem):
        size, per_group = self.partition_size, problem.channels_per_group
        if size is None:
            return
        if size > problem.channels:
            raise ValueError(
                "`partition_size` must not exceed the number of channels "
                f"(={problem.channels}). Received: partition_size={size}. Choose a "
                "smaller one, or plan='diagonal' for the paper's 32 or fewer."
            )
        if size % per_group:
            raise ValueError(
                "`partition_size` must be a multiple of the channels in a group "
                f"(={per_group}). Received: partition_size={size}"
            )

    @classmethod
    def parse(cls, parameters):
        if len(parameters) > 2:
            text = ":".join(("diagonal", *parameters))
            raise ValueError(
                "`diagonal` takes a partition size and a lowering, such as "
                f"'diagonal:32:split'. Received: {text!r}"
            )
        size = None
        if parameters:
            try:
                size = int(parameters[0])
            except ValueError:
                raise ValueError(
                    "`partition_size` must be an int. "
                    f"Received: partition_size={parameters[0]!r}"
                ) from None
        return cls(size, *parameters[1:])

    @classmethod
    def candidates(cls, problem, pass_name) -> Iterator[Diagonal]:
        """Blocks of all groups, of powers of two of them, and of their divisors nearest
        to these powers; those nearest to the paper's partition size first."""
        if problem.is_dense:
            return
        groups = problem.groups
        divisors = [n for n in range(1, groups + 1) if groups % n == 0]
        merged = {groups}
        for power in (2**i for i in range(1, groups.bit_length()) if 2**i <= groups):
            nearest = min(divisors, key=lambda n: (abs(math.log2(n / power)), n))
            merged |= {power, nearest}

        def order(each):
            ratio = each * problem.channels_per_group / PAPER_PARTITION_SIZE
            return abs(math.log2(ratio)), each

        for each in sorted(merged - {1}, key=order):
            for lowering in LOWERINGS:
                if lowering == LOWERINGS[0] or each < groups:
                    yield cls(each * problem.channels_per_group, lowering)

    def __str__(self):
        if self.partition_size is None:
            return self.name
        words = [self.name, str(self.partition_size)]
        if self.lowering != LOWERINGS[0]:
            words.append(self.lowering)
        return ":".join(words)


def block_problem(problem: Problem, segment: Segment) -> Problem:
    """The convolution of a segment, with its groups merged into blocks."""
    return dataclasses.replace(
        problem,
        groups=segment.groups // segment.merged,
        channels_per_group=problem.channels_per_group * segment.merged,
        filters_per_group=problem.filters_per_group * segment.merged,
    )


def block_diagonal(kernel, segment: Segment):
    """The dense kernel of a segment's blocks, zero off the diagonal.

    Args:
        kernel: `(*kernel_size, channels_per_group, filters)`.

    Returns:
        `(*kernel_size, merged * channels_per_group, filters)`.
    """
    *kernel_size, channels, filters = kernel.shape
    count, merged = segment.groups // segment.merged, segment.merged
    filters_per_group = filters // segment.groups
    kernel = ops.reshape(
        kernel, (*kernel_size, 1, channels, count, merged, filters_per_group)
    )
    diagonal = ops.reshape(ops.eye(merged, dtype="bool"), (merged, 1, 1, merged, 1))
    blocks = ops.where(diagonal, kernel, ops.zeros((), kernel.dtype))
    return ops.reshape(blocks, (*kernel_size, merged * channels, filters))


def read_diagonal(blocks, segment: Segment):
    """The compact kernel on the diagonal of a dense one: the transpose of
    `block_diagonal`."""
    *kernel_size, channels, filters = blocks.shape
    count, merged = segment.groups // segment.merged, segment.merged
    channels, filters_per_group = channels // merged, filters // segment.groups
    blocks = ops.reshape(
        blocks, (*kernel_size, merged, channels, count, merged, filters_per_group)
    )
    diagonal = ops.reshape(ops.eye(merged, dtype="bool"), (merged, 1, 1, merged, 1))
    kernel = ops.sum(
        ops.where(diagonal, blocks, ops.zeros((), blocks.dtype)), axis=len(kernel_size)
    )
    return ops.reshape(kernel, (*kernel_size, channels, filters))


def slice_groups(tensor, problem: Problem, segment: Segment, per_group: int):
    """The channels of a segment's groups, in inputs or outputs."""
    return slice_axis(tensor, problem.channel_axis, segment, per_group, problem.groups)


def slice_kernel(kernel, problem: Problem, segment: Segment):
    """The filters of a segment's groups."""
    return slice_axis(
        kernel,
        problem.rank + 1,
        segment,
        problem.filters_per_group,
        problem.groups,
    )


def slice_axis(tensor, axis: int, segment: Segment, per_group: int, groups: int):
    """The part of `axis` that holds a segment's groups."""
    if segment.groups == groups:
        return tensor
    start = segment.first_group * per_group
    index = slice(start, start + segment.groups * per_group)
    return tensor[(slice(None),) * axis + (index,)]


def concatenate(tensors: list, axis: int):
    """`ops.concatenate`, and a single tensor as it is."""
    return tensors[0] if len(tensors) == 1 else keras.ops.concatenate(tensors, axis)
