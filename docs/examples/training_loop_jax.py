"""A custom training loop on JAX: converted models need nothing special.

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

loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
optimizer = keras.optimizers.Adam(0.005)
optimizer.build(model.trainable_variables)
weights, slots = model.trainable_variables, optimizer.variables


def compute_loss(values, x, y):
    return loss_function(y, model.stateless_call(values, [], x)[0])


@jax.jit
def step(values, optimizer_values, x, y):
    loss, gradients = jax.value_and_grad(compute_loss)(values, x, y)
    return loss, *optimizer.stateless_apply(optimizer_values, gradients, values)


values = [variable.value for variable in weights]
optimizer_values = [variable.value for variable in slots]
losses = []
for first in range(0, 1536, 32):
    batch = images[first : first + 32], digits.target[first : first + 32]
    loss, values, optimizer_values = step(values, optimizer_values, *batch)
    losses.append(float(loss))
for variable, value in zip(
    [*weights, *slots], [*values, *optimizer_values], strict=True
):
    variable.assign(value)
print(f"loss: {losses[0]:.2f} at first, {losses[-1]:.2f} at the end")
