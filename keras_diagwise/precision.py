"""How far the result of a pass may be off, by rounding alone.

A candidate is verified element by element, see `allowed_errors`. What a decision keeps
of it is one number, the largest error of any element in units of the exact result's
root mean square, by which `allowed_error` tells what is as precise as its dtype allows.
"""

from __future__ import annotations

import math

import numpy as np

from keras_diagwise.problem import Problem

STANDARD, STRICT = PRECISIONS = ("standard", "strict")
"""How precise a candidate must be to serve: as precise as the backend's standard
convolution in the mode that it is in (TF32, reduced precision); or as native of the
very problem, give or take rounding in the problem's own dtype."""

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
"""What is smaller may become zero."""

ROUNDINGS = 16

MAX_OF_A_SUM = 0.5
"""Stock's sum may be off by so much of the result's root mean square where it rounds
every addition to a short dtype; beyond it is wrong."""


def length_of_sums(problem: Problem, pass_name: str) -> int:
    """How many products an element of a pass's result adds up, at most."""
    return {
        "forward": problem.taps * problem.channels_per_group,
        "input_gradient": problem.taps * problem.filters_per_group,
        "kernel_gradient": (problem.batch or 1)
        * math.prod(problem.output_spatial_shape),
    }[pass_name]


def allowed_errors(
    problem: Problem, exact: np.ndarray, magnitudes: np.ndarray
) -> np.ndarray:
    """How far each element may be off.

    A sum of n products is off by at most n roundings of the sum of their magnitudes
    (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), and by about their
    root where the roundings are random (2.8); what sums in blocks, as fast code does,
    stays below 16. Short dtypes are summed in float32. The result is rounded once,
    which is relative to the element; another such rounding is left for what stores a
    part of it.

    Args:
        problem: the problem.
        exact: the exact result.
        magnitudes: of each element the sum of its products' magnitudes.
    """
    stored = UNIT_ROUNDOFF[problem.dtype]
    summed = min(stored, UNIT_ROUNDOFF["float32"])
    rounding = 2 * stored * np.abs(exact) + MIN_NUMBER[problem.dtype]
    return rounding + ROUNDINGS * summed * magnitudes


def allowed_native_errors(
    problem: Problem, exact: np.ndarray, magnitudes: np.ndarray
) -> np.ndarray:
    """The same for stock, which in a short dtype may round each addition to it."""
    strict = allowed_errors(problem, exact, magnitudes)
    each = ROUNDINGS * UNIT_ROUNDOFF[problem.dtype] * magnitudes
    most = MAX_OF_A_SUM * math.sqrt(np.mean(np.square(exact)))
    return np.maximum(strict, np.minimum(each, most))


def allowed_error(problem: Problem, pass_name: str) -> float:
    """How large the error may be by the dtype and the length of the sums, in units of
    the result's root mean square.

    Rounding errors of a sum of n random products behave like a random walk of n
    steps, so they grow with its root; 16 leaves room for the largest of many elements.
    """
    stored = UNIT_ROUNDOFF[problem.dtype]
    summed = min(stored, UNIT_ROUNDOFF["float32"])
    length = length_of_sums(problem, pass_name)
    return ROUNDINGS * math.sqrt(length) * summed + 8 * stored
