"""Train in mixed precision: layers compute in bfloat16 and keep float32 weights.

A decision is valid for one dtype: float32 and bfloat16 are tuned separately.

To install: pip install 'keras-diagwise[jax]' scikit-learn
"""

import keras
from keras import layers
from sklearn.datasets import load_digits

import keras_diagwise


def classifier(dtype):
    """A small network of depthwise and pointwise convolutions."""
    model = keras.Sequential([keras.Input((8, 8, 1))])
    model.add(layers.Conv2D(32, 3, padding="same", dtype=dtype))
    for _ in range(2):
        model.add(layers.DepthwiseConv2D(3, padding="same", dtype=dtype))
        model.add(layers.BatchNormalization(momentum=0.9, dtype=dtype))
        model.add(layers.Activation("relu", dtype=dtype))
        model.add(layers.Conv2D(32, 1, dtype=dtype))
    model.add(layers.GlobalAveragePooling2D(dtype=dtype))
    model.add(layers.Dense(10, dtype="float32"))  # keep logits in float32
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


digits = load_digits()
images = (digits.images[..., None] / 16).astype("float32")
for dtype in ("float32", "mixed_bfloat16"):
    keras.utils.set_random_seed(0)
    model = classifier(dtype)
    keras_diagwise.convert(model, verbose=0)
    model.fit(images[:1500], digits.target[:1500], epochs=10, verbose=0)
    _, accuracy = model.evaluate(images[1500:], digits.target[1500:], verbose=0)
    (line, *_) = keras_diagwise.summary(model, batch_size=32)
    print(f"{dtype}: a problem of {line.problem.dtype}, accuracy {accuracy:.0%}")
