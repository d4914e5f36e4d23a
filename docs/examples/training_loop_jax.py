"""A training loop of one's own on JAX: a converted model is like any other.

To install: pip install 'keras-diagwise[jax]' scikit-learn
"""

import jax
import keras
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

loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
optimizer = keras.optimizers.Adam(0.005)
optimizer.build(model.trainable_variables)
weights, slots = model.trainable_variables, optimizer.variables


def loss_by(values, x, y):
    return loss_of(y, model.stateless_call(values, [], x)[0])


@jax.jit
def step(values, of_optimizer, x, y):
    loss, gradients = jax.value_and_grad(loss_by)(values, x, y)
    return loss, *optimizer.stateless_apply(of_optimizer, gradients, values)


values = [variable.value for variable in weights]
of_optimizer = [variable.value for variable in slots]
losses = []
for first in range(0, 1536, 32):
    batch = images[first : first + 32], digits.target[first : first + 32]
    loss, values, of_optimizer = step(values, of_optimizer, *batch)
    losses.append(float(loss))
for variable, value in zip([*weights, *slots], [*values, *of_optimizer], strict=True):
    variable.assign(value)
print(f"the loss went from {losses[0]:.2f} to {losses[-1]:.2f}")
