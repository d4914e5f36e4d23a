"""Classify activities from a watch's motion sensors with separable convolutions.

The data set BasicMotions comes with sktime: 80 recordings of six sensors over 100 time
steps, of people standing, walking, running and playing badminton.

To install: pip install 'keras-diagwise[jax]' sktime
"""

import keras
import numpy as np
from keras import layers
from sktime.datasets import load_basic_motions

import keras_diagwise


def recordings(split):
    """The recordings, `(recordings, steps, sensors)`, and their labels."""
    sensors, names = load_basic_motions(split=split, return_type="numpy3d")
    activities = sorted(set(names))
    labels = np.array([activities.index(name) for name in names])
    return np.swapaxes(sensors, 1, 2).astype("float32"), labels


def block(x, filters):
    """A separable convolution over nine steps; the output has half as many steps."""
    x = layers.SeparableConv1D(filters, 9, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.Activation("relu")(x)
    return layers.MaxPooling1D(2)(x)


keras.utils.set_random_seed(0)
motions, labels = recordings("train")
normalization = layers.Normalization()
normalization.adapt(motions)

inputs = keras.Input(motions.shape[1:])
x = normalization(inputs)
for filters in (32, 64, 64):
    x = block(x, filters)
x = layers.GlobalAveragePooling1D()(x)
model = keras.Model(inputs, layers.Dense(4)(x))
model.compile(
    keras.optimizers.Adam(0.005),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)

keras_diagwise.convert(model)
model.fit(motions, labels, batch_size=8, epochs=40, verbose=0)
_, accuracy = model.evaluate(*recordings("test"), verbose=0)
print(keras_diagwise.summary(model, batch_size=8))
print(f"test accuracy: {accuracy:.0%}")
