"""How far the result of a pass may be off, by rounding alone.

Errors are the largest of any element, in units of the exact result's root mean square.
"""

from __future__ import annotations

import math

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

MOST_OF_A_SUM = 0.5
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


def allowed_error(problem: Problem, pass_name: str) -> float:
    """How large the error may be by the dtype and the length of the sums.

    Rounding errors of a sum of n random products behave like a random walk of n
    steps (Higham, Accuracy and Stability of Numerical Algorithms, 2.8), so they
    grow with its root; 16 leaves room for the largest of many elements. Short
    dtypes are summed in float32, and the result is rounded once.
    """
    stored = UNIT_ROUNDOFF[problem.dtype]
    summed = min(stored, UNIT_ROUNDOFF["float32"])
    return 16 * math.sqrt(length_of_sums(problem, pass_name)) * summed + 8 * stored


def allowed_native_error(problem: Problem, pass_name: str) -> float:
    """The same for stock, which in a short dtype may round each addition to it."""
    stored = UNIT_ROUNDOFF[problem.dtype]
    each = 16 * math.sqrt(length_of_sums(problem, pass_name)) * stored
    strict = allowed_error(problem, pass_name)
    return max(strict, min(each, MOST_OF_A_SUM))
