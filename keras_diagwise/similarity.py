"""Similarity of problems: the bucket of a problem, and the distance between two of one
bucket."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from keras_diagwise.problem import Problem

Key = TypeVar("Key", str, tuple[str, str])


def bucket(problem: Problem) -> str:
    """The fields that a decision must share with a problem to serve it, as a name that
    a folder can have."""

    def by(numbers):
        return "x".join(map(str, numbers))

    # One tap needs no padding.
    padding = "valid" if problem.is_dense and problem.taps == 1 else problem.padding
    kind = f"g{problem.channels_per_group}x{problem.filters_per_group}"
    if problem.is_dense:
        kind = "matmul" if problem.operation == "matmul" else "dense"
    return "-".join(
        (
            f"{problem.rank}d",
            kind,
            f"k{by(problem.kernel_size)}",
            f"s{by(problem.strides)}",
            f"d{by(problem.dilation_rate)}",
            padding,
            problem.data_format,
            problem.dtype,
        )
    )


class Logarithms(NamedTuple):
    """Base-2 logarithms of the sizes in which problems of one bucket differ, rounded as
    in the name of a decision's file. The channels of a dense problem are the geometric
    mean of its channels and filters."""

    batch: float
    pixels: float
    channels: float


def logarithms(problem: Problem) -> Logarithms:
    """The logarithms of a problem's sizes. An unknown or empty one counts as 1."""
    pixels = math.prod(n or 1 for n in problem.spatial_shape)
    channels: float = problem.channels
    if problem.is_dense:
        channels = math.sqrt(problem.channels * problem.filters)
    sizes = (problem.batch or 1, pixels, channels)
    return Logarithms(*(round(math.log2(n), 3) for n in sizes))


def distance(one: Logarithms, other: Logarithms) -> float:
    """Distance between two problems, in the logarithms of batch × pixels and of
    channels. 1 is twice the images, the pixels or the channels."""
    images = one.batch + one.pixels - other.batch - other.pixels
    return round(math.hypot(images, one.channels - other.channels), 6)


def nearest_first(
    problem: Problem, others: Iterable[tuple[Logarithms, Key]]
) -> list[Key]:
    """The keys of other problems of the same bucket, the nearest first.

    An unknown batch counts as the largest among the others. Ties are broken by key,
    alike everywhere.
    """
    others = list(others)
    sought = logarithms(problem)
    if problem.batch is None:
        largest = max((sizes.batch for sizes, _ in others), default=0.0)
        sought = sought._replace(batch=largest)

    found = sorted((distance(sizes, sought), key) for sizes, key in others)
    return [key for _, key in found]
