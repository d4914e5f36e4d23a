"""A custom training loop on TensorFlow: converted models need nothing special.

To install: pip install 'keras-diagwise[tensorflow]' scikit-learn
"""

import keras
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits

import keras_diagwise

keras.utils.set_random_seed(0)
digits = load_digits()
images = (digits.images[..., None] / 16).astype("float32")
model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(16, 3)])
model.add(layers.DepthwiseConv2D(3, padding="same", activation="relu"))
model.add(layers.Flatten())
model.add(layers.Dense(10))
keras_diagwise.convert(model)

loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
optimizer = keras.optimizers.Adam(0.005)
optimizer.build(model.trainable_variables)
weights = model.trainable_variables


@tf.function
def train(x, y):
    with tf.GradientTape() as tape:
        loss = loss_function(y, model(x, training=True))
    optimizer.apply(tape.gradient(loss, weights), weights)
    return loss


losses = []
for first in range(0, 1536, 32):
    batch = slice(first, first + 32)
    losses.append(float(train(images[batch], digits.target[batch])))
print(f"loss: {losses[0]:.2f} at first, {losses[-1]:.2f} at the end")
