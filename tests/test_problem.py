"""The problem's arithmetic, against Keras's own and by hand."""

import dataclasses
import json

import hypothesis
import keras
import numpy as np
import pytest

from keras_diagwise.problem import Problem
from tests.strategies import problems


@hypothesis.given(problem=problems(dtypes=("float32",)))
def test_output_shape_is_what_keras_computes(problem):
    hypothesis.assume(1 in (max(problem.strides), max(problem.dilation_rate)))
    stock = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
    layer = stock[problem.rank - 1](
        problem.filters,
        problem.kernel_size,
        strides=problem.strides,
        padding=problem.padding,
        data_format=problem.data_format,
        dilation_rate=problem.dilation_rate,
        groups=problem.groups,
    )
    assert layer.compute_output_shape(problem.input_shape()) == problem.output_shape()


@hypothesis.given(problem=problems())
def test_a_problem_survives_json(problem):
    again = Problem.from_dict(json.loads(json.dumps(problem.to_dict())))
    assert again == problem
    assert hash(again) == hash(problem)


@hypothesis.given(problem=problems())
def test_from_shapes_finds_the_problem_again(problem):
    again = Problem.from_shapes(
        problem.input_shape(),
        problem.kernel_shape,
        strides=problem.strides,
        padding=problem.padding,
        data_format=problem.data_format,
        dilation_rate=problem.dilation_rate,
        dtype=problem.dtype,
    )
    assert again == problem


MOBILE = Problem.from_shapes((16, 56, 56, 144), (3, 3, 1, 144), padding="same")


def test_arithmetic_by_hand():
    assert MOBILE.is_depthwise
    assert MOBILE.flops == 2 * 16 * 56 * 56 * 9 * 144
    tensor = 16 * 56 * 56 * 144
    assert MOBILE.least_bytes == 4 * (2 * tensor + 9 * 144)
    assert str(MOBILE) == "16×56×56×144, kernel 3×3, same, float32"


def test_the_odd_zero_of_padding_goes_after():
    """The odd zero of `same` padding goes after the input."""
    problem = dataclasses.replace(MOBILE, strides=(2, 2))
    assert problem.padding_pairs == ((0, 1), (0, 1))
    assert problem.output_spatial_shape == (28, 28)


def test_what_is_not_an_int_is_unknown():
    class Symbolic:
        pass

    problem = Problem.from_shapes((Symbolic(), None, 8, 4), (3, 3, 1, 4))
    assert problem.batch is None
    assert problem.spatial_shape == (None, 8)
    assert not problem.has_static_spatial_shape
    assert problem.output_shape() == (None, None, 6, 4)
    assert np.isfinite(problem.flops)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"input_shape": (2, 8)}, "inputs.shape=(2, 8)"),
        ({"kernel_shape": (3, 1, 4)}, "kernel.shape=(3, 1, 4)"),
        (
            {"kernel_shape": (3, 3, 3, 4)},
            "divisible by the kernel's channels in a group (=3)",
        ),
        ({"kernel_shape": (3, 3, 1, 6)}, "filters (=6)"),
        ({"kernel_shape": (3, 0, 1, 4)}, "kernel_size=[3, 0]"),
        ({"strides": 0}, "strides=0"),
        ({"strides": (1, 2, 3)}, "strides=(1, 2, 3)"),
        ({"dilation_rate": -1}, "dilation_rate=-1"),
        ({"padding": "causal"}, "padding='causal'"),
        ({"data_format": "NHWC"}, "data_format='NHWC'"),
        ({"input_shape": (2, 8, 8, None)}, "inputs.shape=(2, 8, 8, None)"),
    ],
)
def test_invalid_arguments_are_named(arguments, named):
    """An argument that does not fit is named with its value."""
    whole = {"input_shape": (2, 8, 8, 4), "kernel_shape": (3, 3, 1, 4), **arguments}
    with pytest.raises(ValueError) as error:
        Problem.from_shapes(**whole)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch", True),
        ("batch", 16.0),
        ("batch", "16"),
        ("batch", -1),
        ("batch", 2**31),
        ("spatial_shape", [56]),
        ("spatial_shape", [56, 56.0]),
        ("spatial_shape", "56"),
        ("spatial_shape", {"56": 56}),
        ("groups", None),
        ("groups", 0),
        ("groups", True),
        ("channels_per_group", 1.0),
        ("filters_per_group", float("nan")),
        ("kernel_size", []),
        ("kernel_size", [3] * 4),
        ("kernel_size", [3, None]),
        ("kernel_size", 3),
        ("strides", [1, False]),
        ("strides", [[1, 1], [1, 1]]),
        ("dilation_rate", [1, 0]),
        ("padding", "SAME"),
        ("padding", ["same"]),
        ("data_format", {}),
        ("dtype", "int8"),
        ("dtype", ["float32"]),
        ("more", 1),
    ],
)
def test_what_is_no_problem_is_refused(name, value):
    values = {**MOBILE.to_dict(), name: value}
    with pytest.raises(ValueError, match="problem"):
        Problem.from_dict(values)


LAYER = Problem.of_dense_layer((16, 24, 24, 96), (96, 384))


@pytest.mark.parametrize(
    ("kernel_shape", "words"),
    [
        ((3, 3, 1, 4), "2×8×8×4, kernel 3×3, valid, float32"),
        ((3, 3, 1, 8), "2×8×8×4, kernel 3×3, depth multiplier 2, valid, float32"),
        ((3, 3, 2, 6), "2×8×8×4, kernel 3×3, 2 groups of 3 filters, valid, float32"),
        ((1, 1, 4, 9), "2×8×8×4, kernel 1×1, 9 filters, valid, float32"),
    ],
)
def test_problems_in_words(kernel_shape, words):
    assert str(Problem.from_shapes((2, 8, 8, 4), kernel_shape)) == words


def test_a_dense_layer_is_another_problem():
    """It is a 1×1 convolution that another stock operation computes."""
    same = Problem.from_shapes((16, 24, 24, 96), (1, 1, 96, 384))
    assert dataclasses.replace(LAYER, operation="conv") == same
    assert LAYER.digest != same.digest
    assert Problem.from_dict(json.loads(json.dumps(LAYER.to_dict()))) == LAYER
    assert "operation" not in same.to_dict()
    assert str(LAYER) == "16×24×24×96, dense layer, units 384, float32"
    with pytest.raises(ValueError, match="must equal the kernel's"):
        Problem.of_dense_layer((16, 24, 24, 96), (48, 384))
    with pytest.raises(ValueError, match="1 to 3 spatial axes"):
        Problem.of_dense_layer((16, 96), (96, 384))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("operation", "conv"),
        ("operation", None),
        ("operation", ["matmul"]),
        ("kernel_size", [3, 3]),
        ("strides", [1, 2]),
        ("dilation_rate", [2, 1]),
        ("padding", "same"),
        ("data_format", "channels_first"),
        ("groups", 2),
        ("channels_per_group", 1),
    ],
)
def test_no_other_problem_is_a_dense_layers(name, value):
    with pytest.raises(ValueError, match="A problem must have"):
        Problem.from_dict({**LAYER.to_dict(), name: value})


@pytest.mark.parametrize("values", [None, [], "problem", {}, {"batch": 1}])
def test_missing_fields_are_refused(values):
    """Values without the fields of a problem are refused."""
    with pytest.raises(ValueError, match="A problem must have"):
        Problem.from_dict(values)


@hypothesis.given(problem=problems(), other=problems())
def test_equal_problems_have_one_digest(problem, other):
    """Problems have one digest if and only if they are equal."""
    assert (problem.digest == other.digest) == (problem == other)
    assert Problem.from_dict(problem.to_dict()).digest == problem.digest


def test_overhangs_can_be_negative():
    """Overhangs are negative where the last pixels meet no tap."""
    problem = dataclasses.replace(
        MOBILE, spatial_shape=(5, 3), kernel_size=(3, 1), strides=(1, 3)
    )
    assert problem.overhangs == (2, -2)
    assert dataclasses.replace(problem, spatial_shape=(5, None)).overhangs == (2, None)
