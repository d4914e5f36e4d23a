"""Verification of a candidate's numbers: its error against float64, and the bound on
it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_diagwise.precision import allowed_errors, allowed_native_errors
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.tuner.float64_passes import OPERANDS, exact_pass, operand_shapes

DRAWS = 2
"""Draws of operands on which each candidate is verified."""

MAX_OF_ROUNDING = 0.1
"""A larger error is a mistake in any precision: bfloat16's are 0.02."""

MAX_ELEMENTS = 2**22
"""Limit for the distinct images: float64 would take minutes for a large batch."""


def distinct(problem: Problem) -> Problem:
    """The problem with the distinct images only: all, or a part of the batch that is
    repeated to fill it."""
    batch = problem.batch or 1
    per_image = max(
        math.prod(problem.input_shape()[1:]), math.prod(problem.output_shape()[1:])
    )
    most = max(1, MAX_ELEMENTS // max(1, per_image))
    images = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= most)
    return dataclasses.replace(problem, batch=images)


def operands(problem: Problem, pass_name: str, draw: int) -> list[Any]:
    """Seeded operands of a pass, normally distributed, as the backend's tensors. The
    distinct images come from the host, and are repeated on the device."""
    few = distinct(problem)
    times = (problem.batch or 1) // (few.batch or 1)
    return [
        tensor if name == "kernel" else repeated(tensor, times)
        for name, tensor in zip(
            OPERANDS[pass_name],
            (uploaded(array, problem.dtype) for array in drawn(few, pass_name, draw)),
            strict=True,
        )
    ]


def uploaded(array: np.ndarray, dtype: str) -> Any:
    """A tensor that shares no memory with the array."""
    return keras.ops.convert_to_tensor(array.copy(), dtype=dtype)


def repeated(images: Any, times: int) -> Any:
    """A part of a batch, repeated to fill the batch."""
    return images if times == 1 else keras.ops.concatenate([images] * times)


@functools.lru_cache(maxsize=2 * DRAWS)
def drawn(few: Problem, pass_name: str, draw: int) -> list[np.ndarray]:
    """The operands for the distinct images, before they are rounded to the problem's
    dtype."""
    generator = np.random.default_rng(draw)
    dtype = np.float64 if few.dtype == "float64" else np.float32
    return [
        generator.standard_normal(shape, dtype)
        for shape in operand_shapes(few, pass_name)
    ]


def as_array(tensor) -> np.ndarray:
    """A tensor as a numpy array: float64 if the tensor is, else float32."""
    double = keras.backend.standardize_dtype(tensor.dtype) == "float64"
    wide = keras.ops.cast(tensor, "float64" if double else "float32")
    return np.asarray(keras.ops.convert_to_numpy(wide))


class Exact(NamedTuple):
    """The reference for a result, for the distinct images.

    Attributes:
        result: the pass in float64.
        scales: the units of the errors, in the order of `Error`.
    """

    result: np.ndarray
    scales: tuple[Any, ...]


@functools.lru_cache(maxsize=len(PASSES) * DRAWS)
def exact(problem: Problem, pass_name: str, draw: int) -> Exact:
    """The exact result on a draw. Cached for all passes of a problem, since every
    candidate is compared with it."""
    few = distinct(problem)
    left, right = map(as_array, operands(few, pass_name, draw))
    result = exact_pass(few, pass_name, left, right)
    magnitudes = exact_pass(few, pass_name, np.abs(left), np.abs(right))
    if pass_name == "kernel_gradient":
        times = (problem.batch or 1) // (few.batch or 1)
        result, magnitudes = result * times, magnitudes * times
    return Exact(
        result,
        (
            math.sqrt(np.mean(np.square(result))) or 1.0,
            allowed_errors(problem, result, magnitudes),
            allowed_native_errors(problem, result, magnitudes),
        ),
    )


class Error(NamedTuple):
    """The error of a computed pass, over all draws; NaN or infinite if one of its
    numbers is.

    Attributes:
        relative: the largest error, in units of the exact result's root mean square.
        excess: the largest ratio of an element's error to what rounding explains.
        excess_of_stock: likewise, with what rounding explains in stock.
    """

    relative: float
    excess: float
    excess_of_stock: float


def error_of(run: Callable[..., Any], problem: Problem, pass_name: str) -> Error:
    """The error of a computed pass.

    Raises:
        ValueError: if the result has the wrong shape.
    """
    errors = []
    for draw in range(DRAWS):
        computed = run(*operands(problem, pass_name, draw))
        expected, scales = exact(problem, pass_name, draw)
        shape = expected.shape
        if pass_name != "kernel_gradient":
            shape = (problem.batch, *shape[1:])
        if tuple(computed.shape) != shape:
            raise ValueError(
                f"The result must have the shape {shape}. "
                f"Received: {tuple(computed.shape)}"
            )
        for images in parts_that_differ(computed, expected.shape):
            off = np.abs(images - expected)
            errors.append([float(np.max(off / by, initial=0.0)) for by in scales])
    return Error(*(largest(each) for each in zip(*errors, strict=True)))


def parts_that_differ(computed: Any, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The parts of a result, each of this shape, except those that equal the first in
    every number: their error is equal, and they stay on the device. NaN equals nothing.
    Numbers below the least normal one may count as zero."""
    if tuple(computed.shape) == shape:
        yield as_array(computed)
        return
    parts = keras.ops.reshape(computed, (-1, *shape))
    axes = tuple(range(1, len(shape) + 1))
    is_first = keras.ops.all(keras.ops.equal(parts, parts[:1]), axis=axes)
    for i, is_known in enumerate(keras.ops.convert_to_numpy(is_first)):
        if i == 0 or not is_known:
            yield as_array(parts[i])


def largest(errors: Iterable[float]) -> float:
    """The largest of some numbers, or NaN if one is."""
    return max(errors, key=lambda error: (math.isnan(error), error))


def standard_problem(dtype: str) -> Problem:
    """A small dense convolution. Its error on the backend, in the current mode (TF32,
    reduced precision), sets the precision required of a candidate."""
    return Problem.from_shapes(
        (2, 16, 16, 32), (3, 3, 32, 32), padding="same", dtype=dtype
    )


def most_excess(standard: Error) -> float:
    """The largest allowed ratio of a candidate's error to what rounding explains.

    Args:
        standard: the error of the same pass of `standard_problem`.
    """
    return max(1.0, 2 * standard.excess) if standard.relative < MAX_OF_ROUNDING else 1.0
