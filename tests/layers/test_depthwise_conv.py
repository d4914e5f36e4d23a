"""The depthwise layers: stock in everything but how they compute."""

import inspect

import keras
import numpy as np
import pytest

import keras_diagwise as kd
from keras_diagwise import Plan
from keras_diagwise.layers import FAMILY

PAIRS = pytest.mark.parametrize(
    ("stock", "ours"), FAMILY.items(), ids=[cls.__qualname__ for cls in FAMILY.values()]
)
MIXED = Plan(forward="direct", kernel_gradient="diagonal:2:split")


def input_shape(stock):
    return (2, *((7,) * (1 if "1D" in stock.__name__ else 2)), 4)


@PAIRS
def test_takes_every_argument_of_the_stock_layer(stock, ours):
    arguments = {
        "kernel_size": 3,
        "strides": 2,
        "padding": "same",
        "depth_multiplier": 2,
        "data_format": "channels_last",
        "dilation_rate": 1,
        "activation": "relu",
        "use_bias": False,
        "depthwise_initializer": "he_normal",
        "bias_initializer": "ones",
        "depthwise_regularizer": keras.regularizers.L2(0.1),
        "bias_regularizer": "l1",
        "activity_regularizer": "l2",
        "depthwise_constraint": "max_norm",
        "bias_constraint": "non_neg",
        "name": "named",
        "trainable": False,
        "dtype": "float32",
    }
    stock_arguments = set(inspect.signature(stock).parameters) - {"kwargs"}
    assert stock_arguments <= set(arguments)
    assert set(inspect.signature(ours).parameters) - {"kwargs"} == stock_arguments | {
        "plan"
    }
    config = ours(**arguments, plan=MIXED).get_config()
    assert config.pop("plan") == {
        "forward": "direct",
        "input_gradient": "native",
        "kernel_gradient": "diagonal:2:split",
    }
    assert config == stock(**arguments).get_config()
    assert ours(3, 2, "same").strides == stock(3, 2, "same").strides


@PAIRS
@pytest.mark.parametrize(
    "plan", ["auto", "native", "direct", "diagonal:2", MIXED], ids=str
)
def test_config_round_trips(stock, ours, plan):
    layer = ours(3, plan=plan)
    assert ours.from_config(layer.get_config()).plan == layer.plan
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert type(again) is ours
    assert again.plan == layer.plan
    assert again.get_config() == layer.get_config()


@PAIRS
def test_names_are_the_stock_ones(stock, ours):
    assert ours.__name__ == stock.__name__
    assert ours.__qualname__ == f"Diagonalwise{stock.__name__}"
    assert getattr(kd, ours.__qualname__) is ours
    assert (
        keras.saving.get_registered_name(ours) == f"keras_diagwise>{ours.__qualname__}"
    )
    first = stock(3).name
    keras.utils.clear_session(free_memory=False)
    assert ours(3).name == first


@PAIRS
def test_weights_are_the_stock_ones(stock, ours):
    shape = input_shape(stock)
    built = [cls(3, depth_multiplier=2) for cls in (stock, ours)]
    for layer in built:
        layer.build(shape)
    one, other = (
        [(w.name, w.shape, w.trainable) for w in layer.weights] for layer in built
    )
    assert one == other


@PAIRS
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float32"])
def test_dtype_policies_are_obeyed(stock, ours, policy):
    inputs = np.ones(input_shape(stock), "float32")
    for plan in ("native", "direct", "diagonal:2"):
        layer = ours(3, plan=plan, dtype=policy)
        outputs = layer(inputs)
        assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype
        assert layer.kernel.dtype == "float32"


@PAIRS
def test_a_partition_size_above_the_channels_is_refused_when_built(stock, ours):
    layer = ours(3, plan="diagonal:8")
    with pytest.raises(ValueError, match="partition_size=8"):
        layer.build(input_shape(stock))
    assert not layer.built


@PAIRS
def test_an_unknown_plan_is_refused(stock, ours):
    with pytest.raises(ValueError, match="fastest"):
        ours(3, plan="fastest")
