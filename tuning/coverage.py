"""Checks that models of `keras.applications` and KerasHub convert and equal stock.

    python -m tuning.coverage [--collection dense|keras_hub] [--names Xception,…]
        [--stop-after SECONDS]

Covers every application and every KerasHub image backbone with depthwise, separable or
grouped convolutions, and some applications of dense convolutions where these can be
converted, in float64, on small images and a batch of two. All such layers must be
converted; the outputs and every weight after a training step must equal stock's to
1e-9; a reverted model must be bit-equal to the original. Figures are written to
tuning/results/coverage[-dense|-keras-hub]-<backend>.json as soon as a model is done,
and known models are not run again. KerasHub must be installed for its backbones; the
packages that only its text models and downloads need are not used.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

os.environ.setdefault("JAX_ENABLE_X64", "1")

import keras
import numpy as np
from keras.src.backend.common import dtypes

import keras_diagwise
from keras_diagwise.environment import Environment
from keras_diagwise.tuner.runner import failed
from tuning.hub_backbones import BACKBONES, backbone
from tuning.records import OVER, known, write
from tuning.workloads import DENSE_MODELS, MODELS

IMAGE_SIZE = 64
MIN_SIZES = {"Xception": 71, "InceptionV3": 75}
BATCH_SIZE = 2
"""At 32×32 batch normalization would see two pixels in the last layers, where stock
itself differs by 1e-5 if its inputs change in the last digit."""

MAX_ERROR = 1e-9

MAX_SENSITIVE = 1e-11
"""Limit of the change in a model's outputs for a change of its inputs' last digit; past
it a comparison says nothing (new EfficientNetV2M: 0.3)."""


def in_float64() -> None:
    """Makes Keras really compute in float64: on JAX and torch its table of result types
    turns it into float32 (seen in 3.15)."""
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")


def application(name: str) -> keras.Model:
    """The model on small images, without its classifier."""
    size = MIN_SIZES.get(name, IMAGE_SIZE)
    return getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg"
    )


class Collection(NamedTuple):
    """Models of one kind.

    Attributes:
        build: builds one by its name.
        names: all their names.
        plan: a plan that never runs stock's operation: `"auto"` would often compare
            stock with itself.
        part: the first words of the file of figures.
        dense: whether the convolutions to convert are dense ones.
    """

    build: Callable[[str], keras.Model]
    names: Sequence[str]
    plan: str
    part: str
    dense: bool = False


COLLECTIONS = {
    "applications": Collection(application, list(MODELS), "direct", "coverage"),
    "keras_hub": Collection(backbone, list(BACKBONES), "direct", "coverage-keras-hub"),
    "dense": Collection(
        application,
        (*DENSE_MODELS, "VGG16", "InceptionV3"),
        "matmul",
        "coverage-dense",
        dense=True,
    ),
}


def with_head(body: keras.Model, name: str) -> keras.Model:
    """The model with a small linear head on its last output; features of an image or a
    sequence are averaged."""
    features = keras.tree.flatten(body.output)[-1]
    if len(features.shape) > 2:
        features = keras.ops.mean(
            features, axis=tuple(range(1, len(features.shape) - 1))
        )
    outputs = keras.layers.Dense(3)(features)
    return keras.Model(body.input, outputs, name=name.lower())


def convertible(model: keras.Model, dense: bool) -> list[str]:
    """Layers that should be converted, found without the package."""
    if dense:
        layers = model._flatten_layers()
        return [each.name for each in layers if isinstance(each, keras.layers.Conv2D)]
    kinds = keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D
    return [
        layer.name
        for layer in model._flatten_layers()
        if isinstance(layer, kinds)
        or (isinstance(layer, keras.layers.Conv2D) and layer.groups > 1)
    ]


def without_noise(model: keras.Model) -> keras.Model:
    """The model with dropout and stochastic depth disabled."""
    for layer in model._flatten_layers():
        for name in ("rate", "drop_path_rate"):
            if getattr(layer, name, None):
                setattr(layer, name, 0.0)
    return model


def apart(found, expected, least: float = 0.0) -> float:
    """Relative difference of two arrays in norm; the expected norm is at least that of
    an array of `least`."""
    norm = max(np.linalg.norm(expected), least * np.sqrt(expected.size))
    return float(np.linalg.norm(found - expected) / norm)


def most_apart(found, expected) -> float:
    """Largest relative difference of several arrays, with `least` 1e-5: some should be
    zero, such as a shift that batch normalization cancels, and are rounding only."""
    return max(map(apart, found, expected, itertools.repeat(1e-5)))


def sensitivity(model: keras.Model, images) -> float:
    """Relative change of the outputs if the images change in their last digit."""
    changed = np.nextafter(images, np.inf)
    return apart(*(outputs_of(model, each) for each in (changed, images)))


def settle(model: keras.Model, images, targets) -> None:
    """Sets batch normalization's moving statistics to the batch's: with initial ones
    the activations of a deep model grow from layer to layer."""
    layers = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.train_on_batch(images, targets)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def outputs_of(model: keras.Model, images) -> np.ndarray:
    return np.asarray(model.predict_on_batch(images))


def weights_after_a_step(model: keras.Model, images, targets) -> list:
    model.compile(keras.optimizers.SGD(0.01), "mse")
    model.train_on_batch(images, targets)
    return model.get_weights()


def figures_of(name: str, collection: Collection) -> dict:
    """Figures of a model. If stock fails in a training step, only outputs and `revert`
    are compared, and the converted model must take a step."""
    started = time.perf_counter()
    keras.utils.set_random_seed(0)
    try:
        model = without_noise(with_head(collection.build(name), name))
    except ValueError as error:
        return {"stock_failure": f"not built: {error}"}
    expected = convertible(model, collection.dense)
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (BATCH_SIZE, *model.input_shape[1:]))
    targets = generator.normal(size=(BATCH_SIZE, 3))
    try:
        sensitive = sensitivity(model, images) > MAX_SENSITIVE
    except Exception as error:
        return {"layers": len(expected), "stock_failure": str(failed(error))}
    if sensitive:
        # By the converted model: stock's step may run out of memory.
        keras_diagwise.convert(model, plan=collection.plan, verbose=0)
        settle(model, images, targets)
        keras_diagwise.revert(model)
    before, outputs = model.get_weights(), outputs_of(model, images)
    against: dict[str, object] = {}
    try:
        stock = weights_after_a_step(model, images, targets)
    except Exception as error:
        stock = None
        against["stock_failure"] = str(failed(error))
        model = without_noise(with_head(collection.build(name), name))
    model.set_weights(before)
    keras_diagwise.convert(model, plan=collection.plan, verbose=0)
    converted = [line.path for line in keras_diagwise.summary(model)]
    against["outputs_error"] = apart(outputs_of(model, images), outputs)
    ours = weights_after_a_step(model, images, targets)
    if stock is not None:
        against["step_error"] = most_apart(ours, stock)
    del ours, stock
    model.set_weights(before)
    keras_diagwise.revert(model)
    same = all(map(np.array_equal, model.get_weights(), before))
    return {
        "layers": len(expected),
        "converted": len({path.rpartition("/")[2] for path in converted}),
        **against,
        "reverts_bit_exactly": same
        and np.array_equal(outputs_of(model, images), outputs),
        "parameters": model.count_params(),
        "image_size": model.input_shape[1],
        "seconds": time.perf_counter() - started,
    }


def is_right(figures: dict) -> bool | None:
    """Whether a model equals stock; `None` if stock gives no outputs."""
    if "outputs_error" not in figures:
        return None
    return (
        figures["layers"] == figures["converted"] > 0
        and figures["outputs_error"] <= MAX_ERROR
        and figures.get("step_error", 0) <= MAX_ERROR
        and figures["reverts_bit_exactly"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", choices=COLLECTIONS, default="applications")
    parser.add_argument("--names")
    parser.add_argument("--stop-after", type=float, default=float("inf"))
    options = parser.parse_args()
    until = time.monotonic() + options.stop_after
    in_float64()
    collection = COLLECTIONS[options.collection]
    name_of_file = f"{collection.part}-{keras.backend.backend()}.json"
    for name in options.names.split(",") if options.names else collection.names:
        if name in known(name_of_file).get("models", {}):
            continue
        if time.monotonic() > until:
            raise SystemExit(OVER)
        figures = figures_of(name, collection)
        figures["is_right"] = is_right(figures)
        results = known(name_of_file)  # another process may have written meanwhile
        results.setdefault("models", {})[name] = figures
        results["environment"] = Environment.current().to_dict()
        results |= {"keras": keras.__version__, "plan": collection.plan}
        results["most_error"] = MAX_ERROR
        write(name_of_file, results)
        print(name, figures, flush=True)
        keras.utils.clear_session()


if __name__ == "__main__":
    main()
