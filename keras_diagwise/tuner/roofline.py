"""The roofline of a device: how fast it copies and multiplies."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np

from keras_diagwise import backends
from keras_diagwise.algorithms.algorithm import Work
from keras_diagwise.problem import BYTES_PER_ELEMENT, Problem
from keras_diagwise.tuner.measure import TimingPolicy, interleaved, timing_policy


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Measured limits of a device, which no algorithm exceeds.

    Attributes:
        copies: bytes that a copy reads and writes, each with its seconds.
        flops_per_second: rate of a product of dense matrices.
    """

    copies: tuple[tuple[int, float], ...]
    flops_per_second: float

    @property
    def bytes_per_second(self) -> float:
        """Bandwidth of the largest copy, reads and writes together."""
        moved, seconds = self.copies[-1]
        return moved / seconds

    def copy_seconds(self, moved: int) -> float:
        """The time to move `moved` bytes, interpolated in logarithms."""
        sizes, seconds = zip(*self.copies, strict=True)
        if moved > sizes[-1]:
            return seconds[-1] * moved / sizes[-1]
        found = np.interp(math.log(max(moved, 1)), np.log(sizes), np.log(seconds))
        return float(math.exp(found))

    def arithmetic_seconds(self, work: Work) -> float:
        """The least time that the multiplications and additions take."""
        return work.flops / self.flops_per_second

    def seconds(self, problem: Problem) -> float:
        """The roofline of a pass: the larger of the time to copy its least bytes and
        the time of its useful arithmetic."""
        arithmetic = problem.flops / self.flops_per_second
        return max(self.copy_seconds(problem.least_bytes), arithmetic)


def measure_roofline(
    compiler_mode: str, dtype: str, policy: TimingPolicy | None = None
) -> Roofline:
    """Measures the limits in about two seconds.

    Args:
        compiler_mode: how the copies and the product are compiled.
        dtype: dtype of the elements.
        policy: what is copied and multiplied; by default the active device's.
    """
    width = BYTES_PER_ELEMENT[dtype]

    def tensor(*shape):
        return keras.ops.cast(np.ones(shape, "float32"), dtype)

    def add_one(x):
        return x + 1

    compiled = backends.active.compiled
    ways = policy or timing_policy()
    copies = interleaved(
        {moved: compiled(add_one, compiler_mode) for moved in ways.copied_bytes},
        {moved: (tensor(moved // (2 * width)),) for moved in ways.copied_bytes},
        seconds=1.0,
        max_rounds=20,
    )
    square = tensor(ways.matrix_size, ways.matrix_size)
    products = interleaved(
        {"product": compiled(keras.ops.matmul, compiler_mode)},
        (square, square),
        seconds=0.5,
        max_rounds=20,
    )
    return Roofline(
        tuple((moved, min(taken)) for moved, taken in copies.items()),
        2 * ways.matrix_size**3 / min(products["product"]),
    )
