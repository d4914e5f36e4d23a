"""JAX on a CPU: XLA optimizes a pass of a problem once for all layers that have it."""

import re

import keras
import numpy as np
import pytest

import keras_diagwise as kd
from keras_diagwise import backends
from tests.engines.test_keras_distribution import distributed
from tests.strategies import to_numpy

pytestmark = pytest.mark.skipif(
    not getattr(backends.active, "HAS_UNITS", False),
    reason="only JAX's programs hold such units, and not those of 0.6.2",
)

SHAPE = (8, 8, 4)
LAYERS = 3


def model_of(plan):
    """Layers of one problem, one after another."""
    inputs = keras.Input(SHAPE)
    outputs = inputs
    for _ in range(LAYERS):
        outputs = kd.DiagonalwiseDepthwiseConv2D(
            (7, 3), padding="same", activation="relu", plan=plan
        )(outputs)
    return keras.Model(inputs, outputs)


def values_of(model):
    return [variable.value for variable in model.trainable_variables]


def loss_of(model):
    def loss(values, images):
        outputs, _ = model.stateless_call(values, [], images)
        return (outputs**2).mean()

    return loss


def lowered_gradients(model):
    import jax

    images = np.ones((2, *SHAPE), "float32")
    gradients = jax.grad(loss_of(model), argnums=(0, 1))
    return jax.jit(gradients).lower(values_of(model), images)


def units_in(text):
    """The functions that are called as compilation units, one for each call."""
    return re.findall(r"call @(\w+)\(.*compilation_unit = ", text)


@pytest.mark.parametrize("plan", ["direct", "direct:rows", "diagonal:2"])
def test_layers_share_one_unit_for_a_pass(plan):
    """A pass of a problem is one unit for all layers."""
    lowered = lowered_gradients(model_of(plan))
    calls = units_in(lowered.as_text())
    assert len(calls) == 3 * LAYERS
    assert len(set(calls)) == 3
    assert lowered.compile().as_text().count(" call(") >= 3 * LAYERS


def test_units_give_stocks_numbers():
    import jax

    stock, converted = (model_of(plan) for plan in ("native", "direct"))
    converted.set_weights(stock.get_weights())
    images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
    expected, found = (
        jax.jit(jax.grad(loss_of(model)))(values_of(model), images)
        for model in (stock, converted)
    )
    for ours, stocks in zip(found, expected, strict=True):
        scale = np.abs(stocks).max()
        np.testing.assert_allclose(ours, stocks, atol=1e-5 * scale)


def test_a_unit_runs_in_loops_and_branches():
    import jax

    images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
    kernel = np.random.default_rng(1).normal(size=(3, 3, 4, 1)).astype("float32")

    def convolved(images):
        return kd.depthwise_conv(images, kernel, padding="same", plan="direct") / 9

    def run(images):
        looped = jax.lax.fori_loop(0, 3, lambda i, x: convolved(x), images)
        return jax.lax.cond(looped.sum() > 0, convolved, lambda x: x, looped + 9)

    assert units_in(jax.jit(run).lower(images).as_text())
    np.testing.assert_allclose(
        jax.jit(run)(images), to_numpy(run(images)), rtol=1e-5, atol=1e-5
    )


def test_what_is_stocks_is_no_unit():
    assert not units_in(lowered_gradients(model_of("native")).as_text())


def test_what_is_exported_holds_no_unit():
    import jax.export

    images = jax.ShapeDtypeStruct((2, *SHAPE), "float32")
    model = model_of("direct")
    exported = jax.export.export(jax.jit(loss_of(model)))(values_of(model), images)
    assert not units_in(exported.mlir_module())


def test_several_devices_share_one_program():
    with distributed("data parallel"):
        text = lowered_gradients(model_of("direct")).as_text()
    assert not units_in(text)
