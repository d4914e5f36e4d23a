"""The error that rounding alone may cause in the result of a pass.

A candidate is verified element by element, see `allowed_errors`. A decision keeps one
number of that, the largest error of any element in units of the exact result's root
mean square; `allowed_error` is its bound for results as precise as their dtype allows.
"""

from __future__ import annotations

import math

import numpy as np

from keras_diagwise.problem import Problem

STANDARD, STRICT = PRECISIONS = ("standard", "strict")
"""Required precision of a candidate: that of the backend's standard convolution in its
current mode (TF32, reduced precision), or that of native for this problem, up to
rounding in the problem's dtype."""

UNIT_ROUNDOFF = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}

MIN_NUMBER = {
    "float64": 2.0**-1022,
    "float32": 2.0**-126,
    "float16": 2.0**-24,
    "bfloat16": 2.0**-126,
}
"""Smaller numbers may become zero."""

ROUNDINGS = 16

MAX_OF_A_SUM = 0.5
"""Largest error of stock that rounds every addition to a short dtype, in units of the
result's root mean square; beyond it the sum is wrong."""


def length_of_sums(problem: Problem, pass_name: str) -> int:
    """Most products summed in one element of a pass's result."""
    return {
        "forward": problem.taps * problem.channels_per_group,
        "input_gradient": problem.taps * problem.filters_per_group,
        "kernel_gradient": (problem.batch or 1)
        * math.prod(problem.output_spatial_shape),
    }[pass_name]


def allowed_errors(
    problem: Problem, exact: np.ndarray, magnitudes: np.ndarray
) -> np.ndarray:
    """The largest error allowed in each element.

    A sum of n products is off by at most n roundings of the sum of their magnitudes
    (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), and by about √n if
    the roundings are random (2.8); blocked summation, as in fast code, stays below 16.
    Short dtypes are summed in float32. The result is rounded once, relative to the
    element; a second such rounding is allowed to code that stores a partial result.

    Args:
        problem: the problem.
        exact: the exact result.
        magnitudes: for each element, the sum of its products' magnitudes.
    """
    stored = UNIT_ROUNDOFF[problem.dtype]
    summed = min(stored, UNIT_ROUNDOFF["float32"])
    rounding = 2 * stored * np.abs(exact) + MIN_NUMBER[problem.dtype]
    return rounding + ROUNDINGS * summed * magnitudes


def allowed_native_errors(
    problem: Problem, exact: np.ndarray, magnitudes: np.ndarray
) -> np.ndarray:
    """`allowed_errors` for stock, which may round each addition to a short dtype."""
    strict = allowed_errors(problem, exact, magnitudes)
    each = ROUNDINGS * UNIT_ROUNDOFF[problem.dtype] * magnitudes
    most = MAX_OF_A_SUM * math.sqrt(np.mean(np.square(exact)))
    return np.maximum(strict, np.minimum(each, most))


def allowed_error(problem: Problem, pass_name: str) -> float:
    """The largest error explained by the dtype and the length of the sums, in units of
    the result's root mean square.

    Rounding errors of a sum of n random products behave like a random walk of n
    steps, so they grow with √n; 16 leaves room for the largest of many elements.
    """
    stored = UNIT_ROUNDOFF[problem.dtype]
    summed = min(stored, UNIT_ROUNDOFF["float32"])
    length = length_of_sums(problem, pass_name)
    return ROUNDINGS * math.sqrt(length) * summed + 8 * stored
