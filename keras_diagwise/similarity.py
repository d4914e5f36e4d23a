"""How near two problems are: which bucket a problem is in, and how far apart two
of one bucket are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from keras_diagwise.problem import Problem

Key = TypeVar("Key", str, tuple[str, str])


def bucket(problem: Problem) -> str:
    """What a decision must have in common with a problem to speak for it, as a
    word that can name a folder."""

    def by(numbers):
        return "x".join(map(str, numbers))

    return "-".join(
        (
            f"{problem.rank}d",
            f"g{problem.channels_per_group}x{problem.filters_per_group}",
            f"k{by(problem.kernel_size)}",
            f"s{by(problem.strides)}",
            f"d{by(problem.dilation_rate)}",
            problem.padding,
            problem.data_format,
            problem.dtype,
        )
    )


class Logarithms(NamedTuple):
    """The sizes by which problems of one bucket differ, to base 2, to the digits
    that the name of a decision's file has."""

    batch: float
    pixels: float
    channels: float


def logarithms(problem: Problem) -> Logarithms:
    """The sizes of a problem. What is unknown or empty counts as 1."""
    pixels = math.prod(n or 1 for n in problem.spatial_shape)
    sizes = (problem.batch or 1, pixels, problem.channels)
    return Logarithms(*(round(math.log2(n), 3) for n in sizes))


def distance(one: Logarithms, other: Logarithms) -> float:
    """How far apart two problems are: that of the logarithms of batch × pixels and of
    channels. 1 is twice the images, the pixels or the channels."""
    images = one.batch + one.pixels - other.batch - other.pixels
    return round(math.hypot(images, one.channels - other.channels), 6)


def nearest_first(
    problem: Problem, others: Iterable[tuple[Logarithms, Key]]
) -> list[Key]:
    """The keys of other problems of the same bucket, the nearest first.

    An unknown batch counts as the largest among the others. What is as far comes in
    the order of the keys, everywhere.
    """
    others = list(others)
    sought = logarithms(problem)
    if problem.batch is None:
        largest = max((sizes.batch for sizes, _ in others), default=0.0)
        sought = sought._replace(batch=largest)

    found = sorted((distance(sizes, sought), key) for sizes, key in others)
    return [key for _, key in found]
