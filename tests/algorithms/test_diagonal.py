"""`diagonal` against the float64 reference, and its block-diagonal kernel."""

from typing import ClassVar

import keras
import numpy as np
import pytest

from keras_diagwise.algorithms import Diagonal
from keras_diagwise.algorithms.diagonal import Segment, block_diagonal, read_diagonal
from tests.algorithms.suite import AlgorithmSuite, data_parallel, depthwise
from tests.strategies import to_numpy


class TestDiagonal(AlgorithmSuite):
    algorithms: ClassVar = [
        Diagonal(size, lowering)
        for lowering in ("grouped", "split")
        for size in (1, 2, 3, 4, 6, 9, None)
    ]


def test_the_kernel_stands_on_the_diagonal():
    kernel = np.arange(1.0, 7.0).reshape(1, 1, 6)
    dense = to_numpy(block_diagonal(kernel, Segment(0, 6, 3)))
    assert dense.shape == (1, 3, 6)
    expected = [[1, 0, 0, 4, 0, 0], [0, 2, 0, 0, 5, 0], [0, 0, 3, 0, 0, 6]]
    np.testing.assert_array_equal(dense[0], expected)


def test_read_ignores_off_diagonal_entries():
    """Reading the diagonal ignores entries off it, even infinite ones."""
    dense = np.full((2, 4, 8), np.inf)
    kernel = np.arange(16.0).reshape(2, 1, 8)
    at = to_numpy(block_diagonal(np.ones((2, 1, 8)), Segment(0, 8, 4))) == 1
    dense[at] = to_numpy(block_diagonal(kernel, Segment(0, 8, 4)))[at]
    read = to_numpy(read_diagonal(dense, Segment(0, 8, 4)))
    np.testing.assert_array_equal(read, kernel)


@pytest.mark.parametrize("lowering", ["grouped", "split"])
@pytest.mark.parametrize("size", range(1, 8))
def test_segments_cover_every_group_once(size, lowering):
    problem = depthwise((4, 4), 7, (3, 3))
    covered = []
    for segment in Diagonal(size, lowering).segments(problem):
        assert segment.groups % segment.merged == 0
        assert segment.merged <= size
        covered += range(segment.first_group, segment.first_group + segment.groups)
    assert covered == list(range(7))


def test_plain_diagonal_uses_partition_32():
    """Plain `diagonal` is the paper's partition size of 32, or fewer channels."""
    problem = depthwise((4, 4), 64, (3, 3))
    assert Diagonal().segments(problem) == Diagonal(32).segments(problem)
    few = depthwise((4, 4), 5, (3, 3))
    assert Diagonal().segments(few) == Diagonal(5).segments(few)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX shards so")
def test_on_several_devices_it_refuses():
    """XLA would gather the batch for it, and sum dense gradients."""
    problem = depthwise((4, 4), 8, (3, 3))
    assert Diagonal(4).refusal(problem) is None
    with data_parallel():
        assert "communication" in Diagonal(4).refusal(problem)
