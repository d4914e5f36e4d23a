"""Verification: honest rounding passes in every dtype, and one wrong tap does not."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
from keras import ops

from keras_diagwise.algorithms import Direct, Native
from keras_diagwise.precision import (
    MOST_OF_A_SUM,
    allowed_error,
    allowed_native_error,
)
from keras_diagwise.problem import PASSES
from keras_diagwise.tuner import exact, verify
from tests.algorithms.suite import depthwise

PROBLEM = depthwise((12, 10), 6, (3, 3), batch=3)
LONG_SUMS = depthwise((48, 48), 2, (3, 3), batch=8)
DTYPES = ("float32", "bfloat16", "float16")


def in_dtype(dtype, problem=PROBLEM):
    return dataclasses.replace(problem, dtype=dtype)


def rounded(problem, pass_name):
    """The exact pass, rounded once to the problem's dtype."""

    def run(left, right):
        operands = map(verify.as_array, (left, right))
        result = exact.exact_pass(problem, pass_name, *operands)
        return ops.cast(ops.convert_to_tensor(result, "float32"), problem.dtype)

    return run


def tap_changed(problem, pass_name, change):
    """The exact pass, with a change of the kernel's first tap."""

    def run(left, right):
        operands = dict(
            zip(
                exact.OPERANDS[pass_name],
                map(verify.as_array, (left, right)),
                strict=True,
            )
        )
        result = None
        if pass_name == "kernel_gradient":
            result = exact.exact_pass(problem, pass_name, *operands.values())
            result[0, 0] = change(result[0, 0])
        else:
            operands["kernel"] = np.array(operands["kernel"], "float64")
            operands["kernel"][0, 0] = change(operands["kernel"][0, 0])
            result = exact.exact_pass(problem, pass_name, *operands.values())
        return ops.cast(ops.convert_to_tensor(result, "float32"), problem.dtype)

    return run


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_once_is_allowed(dtype, pass_name):
    problem = in_dtype(dtype)
    error = verify.error_of(rounded(problem, pass_name), problem, pass_name)
    assert 0 < error <= allowed_error(problem, pass_name)


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("problem", [PROBLEM, LONG_SUMS], ids=["short", "long"])
def test_the_errors_of_direct_and_of_native_are_allowed(problem, dtype, pass_name):
    problem = in_dtype(dtype, problem)
    allowed = {
        Direct(): allowed_error(problem, pass_name),
        Native(): allowed_native_error(problem, pass_name),
    }
    for algorithm, most in allowed.items():
        if algorithm.refusal(problem) is None:
            run = functools.partial(getattr(algorithm, pass_name), problem)
            assert verify.error_of(run, problem, pass_name) <= most


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("problem", [PROBLEM, LONG_SUMS], ids=["short", "long"])
@pytest.mark.parametrize(
    "change", [lambda tap: 0 * tap, lambda tap: -tap], ids=["left out", "negated"]
)
def test_a_wrong_tap_is_not_allowed_even_of_native(problem, dtype, pass_name, change):
    problem = in_dtype(dtype, problem)
    run = tap_changed(problem, pass_name, change)
    error = verify.error_of(run, problem, pass_name)
    assert error > allowed_native_error(problem, pass_name)
    assert error > allowed_error(problem, pass_name)


def test_in_float32_a_tap_that_is_off_by_a_little_is_not_allowed():
    run = tap_changed(PROBLEM, "forward", lambda tap: (1 + 2e-5) * tap)
    error = verify.error_of(run, PROBLEM, "forward")
    assert error > allowed_error(PROBLEM, "forward")


@pytest.mark.parametrize("factors", [(1.0, 1.5), (1.5, 1.0), (1.0, float("nan"))])
def test_wrong_numbers_in_one_draw_of_several_are_found(factors):
    results = iter(factors)
    right = rounded(PROBLEM, "forward")

    def wrong_once(left, right_operand):
        return right(left, right_operand) * next(results)

    error = verify.error_of(wrong_once, PROBLEM, "forward")
    assert not error <= allowed_error(PROBLEM, "forward")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_number_that_is_not_finite_is_found(bad):
    def run(left, right):
        result = np.array(verify.as_array(rounded(PROBLEM, "forward")(left, right)))
        result[0, 0, 0, 0] = bad
        return ops.convert_to_tensor(result)

    assert not np.isfinite(verify.error_of(run, PROBLEM, "forward"))


def test_another_shape_is_an_error():
    def run(left, right):
        return rounded(PROBLEM, "forward")(left, right)[:, 1:]

    with pytest.raises(ValueError, match="must have the shape"):
        verify.error_of(run, PROBLEM, "forward")


def test_draws_differ_and_are_the_same_each_time():
    first, again, second = (
        verify.as_array(verify.operands(PROBLEM, "forward", draw)[0])
        for draw in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)


def test_operands_have_the_dtype_of_the_problem():
    for dtype in DTYPES:
        for operand in verify.operands(in_dtype(dtype), "forward", 0):
            assert keras.backend.standardize_dtype(operand.dtype) == dtype


@pytest.mark.parametrize("pass_name", PASSES)
def test_what_is_allowed_grows_with_the_roundoff_and_the_sums(pass_name):
    single, half, brain = (
        allowed_error(in_dtype(dtype), pass_name)
        for dtype in ("float32", "float16", "bfloat16")
    )
    assert single < half < brain < MOST_OF_A_SUM
    longer = allowed_error(depthwise((12, 10), 6, (9, 9), batch=30), pass_name)
    assert longer > single
    assert allowed_native_error(PROBLEM, pass_name) == single


@pytest.mark.parametrize("pass_name", PASSES)
def test_a_large_batch_repeats_some_images_and_all_are_verified(monkeypatch, pass_name):
    monkeypatch.setattr(verify, "MOST_ELEMENTS", 2000)
    problem = dataclasses.replace(PROBLEM, batch=12)
    few = verify.distinct(problem)
    assert few.batch < 12
    assert 12 % few.batch == 0
    run = functools.partial(getattr(Direct(), pass_name), problem)
    assert verify.error_of(run, problem, pass_name) < 1e-5

    def wrong_at_the_end(left, right):
        result = np.array(verify.as_array(run(left, right)))
        result[-1] += 1.0
        return result

    verify.exact.cache_clear()
    assert verify.error_of(wrong_at_the_end, problem, pass_name) > 1e-2
    verify.exact.cache_clear()
