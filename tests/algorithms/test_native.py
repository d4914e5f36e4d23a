"""`native`: stock Keras against the float64 reference, its passes apart too."""

from typing import ClassVar

import pytest

from keras_diagwise.algorithms import Native
from tests.algorithms.suite import AlgorithmSuite, depthwise


class TestNative(AlgorithmSuite):
    algorithms: ClassVar = [Native()]


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_unknown_sizes_are_no_error(rank, dtype):
    sizes = {"batch": None, "dtype": dtype}
    problem = depthwise((None,) * rank, 1, (1,) * rank, **sizes)
    refusal = Native().refusal(problem)
    assert refusal is None or isinstance(refusal, str)
