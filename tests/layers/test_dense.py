"""The dense layer: stock's in everything but how it computes over pixels."""

import inspect

import keras
import numpy as np
import pytest

import keras_diagwise as kd
from keras_diagwise import Plan
from tests.strategies import to_numpy

PLANS = ["auto", "native", "matmul", Plan(kernel_gradient="matmul")]
plans = pytest.mark.parametrize("plan", PLANS, ids=str)
shapes = pytest.mark.parametrize(
    "shape", [(2, 4), (2, 5, 4), (2, 5, 3, 4), (2, 2, 3, 2, 4), (2, 1, 2, 1, 2, 4)]
)

ARGUMENTS = {
    "units": 3,
    "activation": "relu",
    "use_bias": False,
    "kernel_initializer": "he_normal",
    "bias_initializer": "ones",
    "kernel_regularizer": "l2",
    "bias_regularizer": "l1",
    "activity_regularizer": "l2",
    "kernel_constraint": "max_norm",
    "bias_constraint": "non_neg",
    "name": "named",
    "dtype": "float32",
}


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_a_plan_set_on_a_built_layer_is_checked():
    layer = kd.DiagonalwiseDense(3)
    layer.build((2, 5, 4))
    with pytest.raises(ValueError, match="partition_size"):
        layer.plan = "diagonal:64"
    assert layer.plan == "auto"
    layer = kd.DiagonalwiseDense(3)
    layer.build((2, 4))  # of features, where no plan matters
    layer.plan = "diagonal:64"
    assert layer(draw((2, 4))).shape == (2, 3)


@plans
def test_config_is_stocks_and_a_plan(plan):
    layer = kd.DiagonalwiseDense(**ARGUMENTS, plan=plan)
    config = layer.get_config()
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert type(again) is kd.DiagonalwiseDense
    assert again.plan == layer.plan
    assert again.get_config() == config
    del config["plan"]
    assert config == keras.layers.Dense(**ARGUMENTS).get_config()


def test_signature_is_stocks_and_a_plan():
    stock, ours = (
        set(inspect.signature(cls).parameters)
        for cls in (keras.layers.Dense, kd.DiagonalwiseDense)
    )
    assert ours == stock | {"plan"}


@plans
@shapes
def test_outputs_and_a_step_are_stocks(float64, shape, plan):
    """One step of SGD at rate 1 leaves the gradient of each weight."""
    arguments = {"activation": "tanh", "bias_initializer": "random_normal"}
    layers = [
        keras.layers.Dense(3, **arguments),
        kd.DiagonalwiseDense(3, **arguments, plan=plan),
    ]
    # A layer before it, so that the input gradient counts.
    models = [
        keras.Sequential([keras.Input(shape[1:]), keras.layers.Dense(4), layer])
        for layer in layers
    ]
    models[1].set_weights(models[0].get_weights())
    found = []
    for model in models:
        model.compile(keras.optimizers.SGD(1.0), "mse")
        outputs = to_numpy(model(draw(shape)))
        model.train_on_batch(draw(shape), draw(outputs.shape, 1))
        found.append([outputs, *model.get_weights()])
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype == np.float64
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_dtype_policies_are_obeyed(policy):
    layer = kd.DiagonalwiseDense(3, plan="matmul", dtype=policy)
    outputs = layer(draw((2, 5, 4)).astype("float32"))
    assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype
    assert {weight.dtype for weight in layer.weights} == {"float32"}


def test_sizes_may_be_unknown():
    """Nothing but the channels is known when the model is built."""
    layers = [kd.DiagonalwiseDense(3, plan="matmul"), keras.layers.Dense(3)]
    for layer in layers:
        model = keras.Sequential([keras.Input((None, None, 4)), layer])
        model.compile("sgd", "mse")
        for size in (5, 6):
            model.fit(draw((2, size, size, 4)), draw((2, size, size, 3)), verbose=0)
        assert np.isfinite(model.get_weights()[0]).all()


def test_lora_and_quantization_are_stocks():
    """Where they are in use, the layer computes as the stock one."""
    inputs = draw((2, 5, 4)).astype("float32")
    pair = keras.layers.Dense(3), kd.DiagonalwiseDense(3, plan="matmul")
    for layer in pair:
        layer.build(inputs.shape)
    pair[1].set_weights(pair[0].get_weights())
    for change in ("enable_lora", "quantize"):
        for layer in pair:
            getattr(layer, change)(2 if change == "enable_lora" else "int8")
            for seed, weight in enumerate(layer.trainable_weights):
                weight.assign(draw(weight.shape, seed))
        assert not kd.DiagonalwiseDense.problems_of(pair[1], inputs.shape)
        one, other = (to_numpy(layer(inputs)) for layer in pair)
        np.testing.assert_array_equal(one, other)


def test_quantization_takes_a_config():
    """The second positional argument of Keras's wrapper is the config."""
    if not hasattr(keras.quantizers, "Int8QuantizationConfig"):
        pytest.skip("Keras has no such configurations before 3.13")
    weight_only = keras.quantizers.Int8QuantizationConfig(
        weight_quantizer=keras.quantizers.AbsMaxQuantizer(axis=0),
        activation_quantizer=None,
    )
    layer = kd.DiagonalwiseDense(3)
    layer.build((2, 5, 4))
    layer.quantize("int8", weight_only)
    assert layer.quantization_config is weight_only


@pytest.mark.parametrize("shape", [(2, 5, 0), (2, 0, 4)])
def test_what_is_empty_is_stocks(shape):
    outputs = kd.DiagonalwiseDense(3, plan="matmul")(np.ones(shape, "float32"))
    assert tuple(outputs.shape) == (*shape[:-1], 3)


def test_an_unknown_number_of_channels_is_no_problem():
    layer = kd.DiagonalwiseDense(3, plan="matmul")
    assert layer.compute_output_shape((None, None, None)) == (None, None, 3)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX's sparse arrays")
def test_sparse_inputs_are_stocks():
    from jax.experimental import sparse

    layer = kd.DiagonalwiseDense(3, plan="matmul")
    inputs = draw((2, 5, 4)).astype("float32")
    layer.build(inputs.shape)
    found = layer(sparse.BCOO.fromdense(inputs))
    np.testing.assert_allclose(found, layer(inputs), rtol=1e-5, atol=1e-6)


def test_a_converted_model_can_be_quantized():
    """`Model.quantize` takes converted layers too, which are of a subclass."""
    model = keras.Sequential([keras.Input((5, 4)), kd.DiagonalwiseDense(3)])
    with pytest.warns(UserWarning, match="InputLayer"):
        model.quantize("int8")
    assert model.layers[0].dtype_policy.quantization_mode == "int8"
    kd.revert(model)
    assert model.layers[0].dtype_policy.quantization_mode == "int8"


@pytest.mark.parametrize("plan", ["direct", "diagonal:4"])
def test_a_plan_that_cant_compute_it_is_native(plan):
    layer = kd.DiagonalwiseDense(3, plan=plan)
    stock = keras.layers.Dense(3)
    inputs = draw((2, 5, 4))
    for each in (layer, stock):
        each.build(inputs.shape)
    layer.set_weights(stock.get_weights())
    np.testing.assert_array_equal(to_numpy(layer(inputs)), to_numpy(stock(inputs)))
