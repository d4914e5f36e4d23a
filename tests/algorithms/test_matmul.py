"""`matmul` against the float64 reference."""

from typing import ClassVar

import pytest
from hypothesis import strategies as st

from keras_diagwise.algorithms import Matmul
from keras_diagwise.problem import PASSES
from tests.algorithms.suite import AlgorithmSuite, dense, depthwise


class TestMatmul(AlgorithmSuite):
    algorithms: ClassVar = [Matmul("patches"), Matmul()]
    groups: ClassVar = st.just(1)

    def wide(self, spatial_shape, kernel_size, **fields):
        return dense(spatial_shape, 32, 48, kernel_size, **fields)


def test_it_is_for_dense_convolutions():
    assert Matmul().refusal(dense((6, 6), 4, 3, (3, 3))) is None
    assert "dense" in Matmul().refusal(depthwise((6, 6), 4, (3, 3)))
    assert not list(Matmul.candidates(depthwise((6, 6), 4, (3, 3)), "forward"))


@pytest.mark.parametrize("pass_name", PASSES)
def test_one_tap_has_one_candidate(pass_name):
    candidates = Matmul.candidates(dense((6, 6), 4, 3, (1, 1)), pass_name)
    assert list(map(str, candidates)) == ["matmul"]


def test_a_large_kernel_is_refused():
    refusal = Matmul().refusal(dense((12, 12), 4, 3, (9, 9)))
    assert refusal == "81 taps are more than 64"
