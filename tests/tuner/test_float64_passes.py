"""The tuner's float64 passes equal the definition."""

import hypothesis
import numpy as np

from keras_diagwise.problem import PASSES
from keras_diagwise.tuner import float64_passes
from tests import reference
from tests.strategies import problems, tensors


@hypothesis.given(problem=problems(dtypes=("float64",)))
def test_exact_passes_equal_the_definition(problem):
    hypothesis.assume(problem.batch)
    inputs, kernel, gradient = tensors(problem)
    expected = reference.passes(problem, inputs, kernel, gradient)
    tensors_of = {"input": inputs, "kernel": kernel, "output": gradient}
    for name in PASSES:
        operands = [tensors_of[word] for word in float64_passes.OPERANDS[name]]
        assert [each.shape for each in operands] == float64_passes.operand_shapes(
            problem, name
        )
        found = float64_passes.exact_pass(problem, name, *operands)
        np.testing.assert_allclose(found, getattr(expected, name), atol=1e-12)


@hypothesis.given(problem=problems(dtypes=("float64",), ranks=(2,)))
def test_chunks_of_images_change_nothing(problem):
    hypothesis.assume(problem.batch)
    inputs, _, gradient = tensors(problem)
    whole = float64_passes.exact_pass(problem, "kernel_gradient", inputs, gradient)
    before, float64_passes.MAX_ELEMENTS = float64_passes.MAX_ELEMENTS, 1
    try:
        chunked = float64_passes.exact_pass(
            problem, "kernel_gradient", inputs, gradient
        )
    finally:
        float64_passes.MAX_ELEMENTS = before
    np.testing.assert_allclose(whole, chunked, atol=1e-12)
