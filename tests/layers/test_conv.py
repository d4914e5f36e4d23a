"""The grouped layers: what only they have."""

import keras
import numpy as np
import pytest

import keras_diagwise as kd
from keras_diagwise.layers.base import problems_of
from tests.strategies import to_numpy

STEPS = np.random.default_rng(0).normal(size=(2, 9, 8))


def pair(plan, **arguments):
    """A stock layer and ours with its weights, 1-D and causal."""
    shared = {"filters": 12, "kernel_size": 3, "groups": 4, "padding": "causal"}
    stock = keras.layers.Conv1D(**shared, **arguments)
    ours = kd.DiagonalwiseConv1D(**shared, **arguments, plan=plan)
    return stock, ours


@pytest.mark.parametrize("plan", ["native", "direct", "diagonal:4:split"])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"dilation_rate": 2}, {"strides": 2}, {"data_format": "channels_first"}],
    ids=str,
)
def test_causal_padding_is_the_stock_one(float64, plan, arguments):
    stock, ours = pair(plan, **arguments)
    steps = STEPS
    if arguments.get("data_format") == "channels_first":
        steps = np.swapaxes(STEPS, 1, 2)
    stock.build(steps.shape)
    ours.build(steps.shape)
    ours.set_weights(stock.get_weights())
    np.testing.assert_allclose(
        to_numpy(ours(steps)), to_numpy(stock(steps)), atol=1e-12
    )
    assert ours.compute_output_shape(steps.shape) == ours(steps).shape


def test_causal_padding_sees_no_later_steps():
    _, ours = pair("direct")
    later = STEPS.copy()
    later[:, 5:] = 7.0
    one, other = (to_numpy(ours(steps)) for steps in (STEPS, later))
    np.testing.assert_array_equal(one[:, :5], other[:, :5])
    assert not np.array_equal(one[:, 5:], other[:, 5:])


@pytest.mark.parametrize(
    ("shape", "steps"), [((2, 9, 8), 13), ((2, None, 8), None)], ids=str
)
def test_causal_problem_includes_the_padding(shape, steps):
    """The problem of a causal layer includes the zeros that pad its input."""
    for layer in pair("auto", dilation_rate=2):
        problem = problems_of(layer, shape)["plan"]
        assert (problem.padding, problem.spatial_shape) == ("valid", (steps,))
        assert problem.groups == 4


@pytest.mark.parametrize("plan", ["auto", "direct", "diagonal:8"])
def test_one_group_is_the_stock_layer(plan):
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 8)).astype("float32")
    stock = keras.layers.Conv2D(4, 3)
    ours = kd.DiagonalwiseConv2D(4, 3, plan=plan)
    stock.build(images.shape)
    ours.build(images.shape)
    ours.set_weights(stock.get_weights())
    np.testing.assert_array_equal(to_numpy(ours(images)), to_numpy(stock(images)))


def test_lora_works_as_in_stock():
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 8)).astype("float32")
    layers = [
        keras.layers.Conv2D(8, 3, groups=4),
        kd.DiagonalwiseConv2D(8, 3, groups=4, plan="direct"),
    ]
    for layer in layers:
        layer.build(images.shape)
        layer.enable_lora(2)
    generator = np.random.default_rng(1)
    weights = [generator.normal(size=w.shape) for w in layers[0].get_weights()]
    outputs = []
    for layer in layers:
        layer.set_weights(weights)
        outputs.append(to_numpy(layer(images)))
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-5, atol=1e-4)
