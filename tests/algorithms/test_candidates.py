"""Every candidate of every algorithm in float64, against plain numpy.

`HYPOTHESIS_PROFILE=quarter` draws 500 problems.
"""

import hypothesis
import keras
import numpy as np

from keras_diagwise.problem import PASSES
from keras_diagwise.tuner.candidates import candidates_of
from tests import reference
from tests.algorithms.suite import depthwise
from tests.strategies import problems, tensors, to_backend, to_numpy

MAX_RELATIVE = 1e-12
"""Of the root mean square of the exact values."""


def worst(problem, seed=0):
    """The largest relative error of all candidates' passes, and whose it is."""
    arrays = tensors(problem, seed)
    exact = reference.passes(problem, *arrays)
    inputs, kernel, gradient = to_backend(arrays, problem.dtype)
    operands = {
        "forward": (inputs, kernel),
        "input_gradient": (kernel, gradient),
        "kernel_gradient": (inputs, gradient),
    }
    found = [(0.0, "")]
    for name in PASSES:
        expected = getattr(exact, name)
        scale = np.sqrt(np.mean(expected**2)) if expected.any() else 1.0
        for each in candidates_of(problem, name):
            if each.refusal(problem) is not None:
                continue
            computed = getattr(each, name)(problem, *operands[name])
            assert keras.backend.standardize_dtype(computed.dtype) == problem.dtype
            error = np.abs(to_numpy(computed) - expected).max(initial=0.0) / scale
            found.append((error, f"{name} by {each}"))
    return max(found)


@hypothesis.given(problem=problems(dtypes=("float64",)))
def test_every_candidate_computes_in_float64(problem):
    error, whose = worst(problem)
    hypothesis.target(float(error))
    assert error <= MAX_RELATIVE, whose


def test_a_lower_precision_would_be_seen():
    """The bound is not one that anything passes."""
    problem = depthwise((6, 5), 4, (5, 5), batch=3, dtype="float32")
    assert worst(problem)[0] > MAX_RELATIVE
