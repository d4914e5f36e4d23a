"""Fine-tune a small ConvNeXt with a frozen backbone: only the head is trained.

The whole model learns the digits 0 to 4; then a new head learns 5 to 9.

To install: pip install 'keras-diagwise[jax]' scikit-learn
"""

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import keras_diagwise


def block(x):
    """A ConvNeXt block (arXiv 2201.03545): depthwise 7×7, then two dense layers."""
    channels = x.shape[-1]
    y = layers.DepthwiseConv2D(7, padding="same")(x)
    y = layers.LayerNormalization(epsilon=1e-6)(y)
    y = layers.Dense(4 * channels, activation="gelu")(y)
    return x + layers.Dense(channels)(y)


def backbone():
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(32, 2, strides=2)(layers.ZeroPadding2D(4)(inputs))
    for _ in range(2):
        x = block(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x), name="backbone")


def with_head(body, learning_rate):
    """A compiled classifier of five digits on top of a backbone."""
    model = keras.Sequential([body, layers.Dense(5)])
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


keras.utils.set_random_seed(0)
digits = load_digits()
images = (digits.images[..., None] / 16).astype("float32")
is_low = digits.target < 5

body = backbone()
keras_diagwise.convert(body)  # or the whole model: shared layers are converted once
model = with_head(body, 0.002)
model.fit(images[is_low], digits.target[is_low], epochs=6, verbose=0)

body.trainable = False
before = [np.array(weight) for weight in body.get_weights()]
tuned = with_head(body, 0.02)
tuned.fit(images[~is_low], digits.target[~is_low] - 5, epochs=12, verbose=0)
_, accuracy = tuned.evaluate(images[~is_low], digits.target[~is_low] - 5, verbose=0)
assert all(map(np.array_equal, before, body.get_weights()))
print(f"accuracy on digits that the backbone was not trained on: {accuracy:.0%}")
