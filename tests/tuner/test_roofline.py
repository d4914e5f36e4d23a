"""What no algorithm can go beyond: copies and products, and what follows of them."""

import dataclasses
import math

import keras
import pytest

from keras_diagwise import backends
from keras_diagwise.algorithms import Direct
from keras_diagwise.tuner import roofline as roofline_module
from keras_diagwise.tuner import runner as runner_module
from keras_diagwise.tuner.measure import ACCELERATOR, CPU, MIN_MATRIX_SIZE
from keras_diagwise.tuner.roofline import Roofline, measure_roofline
from keras_diagwise.tuner.runner import FailedError, Runner
from tests.algorithms.suite import depthwise

MODE = backends.active.environment()["compiler_mode"]
PROBLEM = depthwise((8, 8), 4, (3, 3))
ROOFLINE = Roofline(copies=((100, 1e-3), (10_000, 1e-1)), flops_per_second=1e6)


@pytest.mark.parametrize(
    ("moved", "seconds"),
    [(100, 1e-3), (1_000, 1e-2), (10_000, 1e-1), (20_000, 2e-1), (1, 1e-3), (0, 1e-3)],
)
def test_copies_interpolate_in_logarithms(moved, seconds):
    """Copies between the measured sizes are interpolated in logarithms."""
    assert ROOFLINE.copy_seconds(moved) == pytest.approx(seconds)


def test_largest_copy_tells_the_bandwidth():
    assert ROOFLINE.bytes_per_second == pytest.approx(1e5)


def test_least_time_is_the_larger_of_two():
    """The least time is the larger of copying and computing."""
    copying = Roofline(ROOFLINE.copies, math.inf).seconds(PROBLEM)
    computing = Roofline(((1, 0.0001), (2, 0.0001)), 1e-3).seconds(PROBLEM)
    assert copying == pytest.approx(ROOFLINE.copy_seconds(PROBLEM.least_bytes))
    assert computing == pytest.approx(PROBLEM.flops / 1e-3)


def test_arithmetic_takes_flops_over_rate():
    """The arithmetic of a candidate takes its FLOPs over the rate."""
    work = Direct().work(PROBLEM)
    assert ROOFLINE.arithmetic_seconds(work) == pytest.approx(work.flops / 1e6)


def test_limits_are_the_best_measured(monkeypatch):
    def interleaved(functions, operands, **options):
        return {name: [3.0, 2.0, 4.0] for name in functions}

    monkeypatch.setattr(roofline_module, "interleaved", interleaved)
    found = measure_roofline(MODE, "float32")
    assert found.copies == tuple((moved, 2.0) for moved in CPU.copied_bytes)
    assert found.flops_per_second == CPU.matrix_size**3


@pytest.mark.parametrize("fits", [8192, 2048, 512])
def test_little_memory_takes_smaller_arrays(fits, monkeypatch):
    """What does not fit is tried with less, as far as it still is a measurement."""
    tried = []

    def measure(mode, dtype, policy):
        tried.append(policy)
        if policy.matrix_size > fits:
            raise MemoryError
        return ROOFLINE

    monkeypatch.setattr(runner_module, "measure_roofline", measure)
    monkeypatch.setattr(runner_module, "timing_policy", lambda: ACCELERATOR)
    if fits >= MIN_MATRIX_SIZE:
        assert Runner().roofline(MODE, "float32") == ROOFLINE
    else:
        with pytest.raises(FailedError, match="out of memory"):
            Runner().roofline(MODE, "float32")
    sizes = [policy.matrix_size for policy in tried]
    assert sizes == [n for n in (8192, 4096, 2048, 1024) if n >= fits]
    assert min(max(policy.copied_bytes) for policy in tried) >= 2**24


def test_another_error_is_not_tried_again(monkeypatch):
    tried = []

    def fail(*arguments):
        tried.append(arguments)
        raise ValueError("planted")

    monkeypatch.setattr(runner_module, "measure_roofline", fail)
    with pytest.raises(FailedError, match="planted"):
        Runner().roofline(MODE, "float32")
    assert len(tried) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_tensors_have_the_bytes_in_any_dtype(dtype, monkeypatch):
    """The tensors have the stated bytes and run in every dtype."""

    def interleaved(functions, operands, **options):
        for name, function in functions.items():
            given = operands[name] if isinstance(operands, dict) else operands
            result = function(*given)
            backends.active.synchronize(result)
            assert keras.backend.standardize_dtype(result.dtype) == dtype
            moved.append((name, math.prod(result.shape)))
        return {name: [1.0] for name in functions}

    moved = []
    monkeypatch.setattr(roofline_module, "interleaved", interleaved)
    small = dataclasses.replace(CPU, copied_bytes=(2**14, 2**16), matrix_size=16)
    monkeypatch.setattr(roofline_module, "timing_policy", lambda: small)
    measure_roofline(MODE, dtype)
    width = 4 if dtype == "float32" else 2
    copies = [(2**14, 2**13 // width), (2**16, 2**15 // width)]
    assert moved == [*copies, ("product", 16 * 16)]
