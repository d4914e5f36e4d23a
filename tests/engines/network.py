"""A small network of MobileNetV2's kind, and images to train it with, the same in each
process."""

import keras
import numpy as np

import keras_diagwise as kd
from keras_diagwise.layers.base import Diagonalwise

layers = keras.layers

IMAGES = 8
SHAPE = (12, 12, 3)
CLASSES = 4
STEPS = 20

PLANS = {
    "first": "direct",
    "second": kd.Plan(forward="direct", kernel_gradient="diagonal:4"),
    "separable": "diagonal:4:split",
    "grouped": "direct",
}
"""One of each kind, by layer."""


def network(converted=False, plan=None):
    """Two inverted residual blocks, a separable and a grouped convolution; converted by
    a plan, or by `PLANS`."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE)
    x = block(
        layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(inputs), 8, "first"
    )
    x = block(x, 16, "second", stride=2)
    x = layers.SeparableConv2D(16, 3, padding="same", name="separable")(x)
    x = layers.Conv2D(16, 3, groups=4, padding="same", name="grouped")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(CLASSES)(x))
    for name, own in PLANS.items() if converted else ():
        kd.convert(model, filters=name, plan=plan or own, verbose=0)
    return model


def block(inputs, filters, name, stride=1):
    x = layers.Conv2D(2 * filters, 1, use_bias=False)(inputs)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.Activation("relu6")(x)
    x = layers.DepthwiseConv2D(3, stride, padding="same", name=name)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.Activation("relu6")(x)
    x = layers.Conv2D(filters, 1, use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.Add()([inputs, x]) if x.shape == inputs.shape else x


def compiled(model, **arguments):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    model.compile(optimizer, loss, **arguments)
    return model


def batches(count=STEPS):
    """Images and classes, a step's each."""
    draw = np.random.default_rng(7)
    return [
        (
            draw.normal(size=(IMAGES, *SHAPE)),
            draw.integers(CLASSES, size=IMAGES).astype("int32"),
        )
        for _ in range(count)
    ]


def plans_in(model):
    """The plans of a model's converted layers."""
    found = [layer for layer in model.layers if isinstance(layer, Diagonalwise)]
    return {layer.name: str(layer.plan) for layer in found}


def assert_same_training(one, other, steps=STEPS):
    """Losses, and weights at the end, that differ by rounding alone."""
    (losses, weights), (other_losses, other_weights) = one, other
    assert len(losses) == steps
    assert losses[-1] < losses[0] + 1
    np.testing.assert_allclose(other_losses, losses, rtol=1e-9)
    assert len(other_weights) == len(weights)
    for ours, stocks in zip(other_weights, weights, strict=True):
        np.testing.assert_allclose(ours, stocks, rtol=1e-7, atol=1e-9)
