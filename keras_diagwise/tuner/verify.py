"""Whether a candidate's numbers are right: its error against float64, and how large
it may be."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_diagwise.precision import allowed_errors, allowed_native_errors
from keras_diagwise.problem import Problem
from keras_diagwise.tuner.exact import OPERANDS, exact_pass, operand_shapes

DRAWS = 2
"""Of operands that each candidate is verified on."""

MOST_OF_ROUNDING = 0.1
"""An error that is larger is a mistake, whatever the precision: bfloat16's are 0.02."""

MOST_ELEMENTS = 2**22
"""Of the distinct images: float64 would take minutes for a large batch."""


def distinct(problem: Problem) -> Problem:
    """The problem with as many images as differ: all, or a part of the batch that is
    repeated to fill it."""
    batch = problem.batch or 1
    per_image = max(
        math.prod(problem.input_shape()[1:]), math.prod(problem.output_shape()[1:])
    )
    most = max(1, MOST_ELEMENTS // max(1, per_image))
    images = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= most)
    return dataclasses.replace(problem, batch=images)


def operands(problem: Problem, pass_name: str, draw: int) -> list[Any]:
    """Seeded operands of a pass, normally distributed, as the backend's tensors."""
    return [
        keras.ops.convert_to_tensor(array, dtype=problem.dtype)
        for array in drawn(problem, pass_name, draw)
    ]


def drawn(problem: Problem, pass_name: str, draw: int) -> list[np.ndarray]:
    """The operands before they are rounded to the problem's dtype."""
    generator = np.random.default_rng(draw)
    dtype = np.float64 if problem.dtype == "float64" else np.float32
    few = distinct(problem)
    shapes = operand_shapes(few, pass_name)
    arrays = [generator.standard_normal(shape, dtype) for shape in shapes]
    return [
        array if name == "kernel" else repeated(array, problem, few)
        for name, array in zip(OPERANDS[pass_name], arrays, strict=True)
    ]


def repeated(images: np.ndarray, problem: Problem, few: Problem) -> np.ndarray:
    """A part of a batch, as often as it takes to fill the batch."""
    if few == problem:
        return images
    return np.concatenate([images] * ((problem.batch or 1) // (few.batch or 1)))


def as_array(tensor) -> np.ndarray:
    """A tensor as numpy: float64 if it is, else float32."""
    double = keras.backend.standardize_dtype(tensor.dtype) == "float64"
    wide = keras.ops.cast(tensor, "float64" if double else "float32")
    return np.asarray(keras.ops.convert_to_numpy(wide))


@functools.lru_cache(maxsize=2 * DRAWS)
def exact(problem: Problem, pass_name: str, draw: int) -> tuple[np.ndarray, np.ndarray]:
    """The exact result on a draw, for the images that differ, and the sums of its
    products' magnitudes. Remembered: all candidates are held against them."""
    few = distinct(problem)
    left, right = map(as_array, operands(few, pass_name, draw))
    result = exact_pass(few, pass_name, left, right)
    magnitudes = exact_pass(few, pass_name, np.abs(left), np.abs(right))
    if pass_name == "kernel_gradient":
        times = (problem.batch or 1) // (few.batch or 1)
        return result * times, magnitudes * times
    return result, magnitudes


class Error(NamedTuple):
    """How far a computed pass is off, over all draws; NaN or infinite if a number of it
    is.

    Attributes:
        relative: the largest error, in units of the exact result's root mean square.
        excess: the largest error over what rounding explains of that element.
        excess_of_stock: the same, by what it explains of stock.
    """

    relative: float
    excess: float
    excess_of_stock: float


def error_of(run: Callable[..., Any], problem: Problem, pass_name: str) -> Error:
    """The error of a computed pass.

    Raises:
        ValueError: if the result has another shape than it must.
    """
    errors = []
    for draw in range(DRAWS):
        computed = as_array(run(*operands(problem, pass_name, draw)))
        expected, magnitudes = exact(problem, pass_name, draw)
        shape = expected.shape
        if pass_name != "kernel_gradient":
            shape = (problem.batch, *shape[1:])
        if computed.shape != shape:
            raise ValueError(
                f"The result must have the shape {shape}. Received: {computed.shape}"
            )
        scales = (
            math.sqrt(np.mean(np.square(expected))) or 1.0,
            allowed_errors(problem, expected, magnitudes),
            allowed_native_errors(problem, expected, magnitudes),
        )
        for images in computed.reshape(-1, *expected.shape):
            off = np.abs(images - expected)
            errors.append([float(np.max(off / by, initial=0.0)) for by in scales])
    return Error(*(largest(each) for each in zip(*errors, strict=True)))


def largest(errors: Iterable[float]) -> float:
    """The largest of some numbers, NaN if one is."""
    return max(errors, key=lambda error: (math.isnan(error), error))


def standard_problem(dtype: str) -> Problem:
    """A small dense convolution. How precisely the backend computes it, in the mode
    that it is in (TF32, reduced precision), is how precise a candidate must be."""
    return Problem.from_shapes(
        (2, 16, 16, 32), (3, 3, 32, 32), padding="same", dtype=dtype
    )


def most_excess(standard: Error) -> float:
    """How far a candidate may exceed what rounding explains.

    Args:
        standard: the error of the same pass of `standard_problem`.
    """
    return (
        max(1.0, 2 * standard.excess) if standard.relative < MOST_OF_ROUNDING else 1.0
    )
