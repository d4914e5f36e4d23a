"""Trains a stock model and its converted copy side by side, and times both."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np

from keras_diagwise import backends
from keras_diagwise.cli.images import Images
from keras_diagwise.cli.progress import Progress

MIN_PAIRS = 5
PAIRED_SECONDS = 80.0
MIN_PREDICTIONS = 5
MAX_PREDICTIONS = 20
PREDICTION_SECONDS = 15.0
STEPS_BETWEEN_LOOKS = 25
GOOD_ACCURACY = 0.97
LEARNING_RATE = 2e-3
WARM_UP_LEARNING_RATE = 2e-4
"""Learning rate of the steps side by side. At the full rate Adam turned a rounding
difference of 6e-7 at step 1 into a factor of two between the losses at step 32 (seen on
JAX)."""
NORMALIZATION_MOMENTUM = 0.9
"""The models' own 0.99 and 0.999 leave the moving statistics near their initial values
for the first hundreds of steps, and held-out accuracy at chance."""

MODELS = {
    "MobileNet": {"dropout": 0.0},
    "MobileNetV2": {},
    "MobileNetV3Small": {"dropout_rate": 0.0, "include_preprocessing": False},
    "MobileNetV3Large": {"dropout_rate": 0.0, "include_preprocessing": False},
}
"""Models of `keras.applications`, without dropout: losses of two models that drop
different units can't be compared."""

Pair = tuple[float, float]


@dataclasses.dataclass
class SideBySide:
    """Measurements of stock and converted; each pair has stock first.

    Attributes:
        first_steps: seconds of the first training step, which traces and compiles.
        steps: seconds of the timed training steps, one pair per batch.
        losses: losses of every step on the same batches, including the first and the
            warm-up.
        predictions: seconds of `predict_on_batch`.
        accuracies: held-out accuracies after the same steps.
        further_steps: further steps of the converted model alone.
        further_seconds: seconds of those steps, without evaluation.
        further_accuracy: held-out accuracy after them, or `None` without any.
    """

    first_steps: Pair
    steps: list[Pair]
    losses: list[Pair]
    predictions: list[Pair]
    accuracies: Pair
    further_steps: int = 0
    further_seconds: float = 0.0
    further_accuracy: float | None = None


def stock_model(name: str, image_size: int, classes: int) -> keras.Model:
    """A compiled model of `keras.applications` with random weights."""
    application = getattr(keras.applications, name)
    model = application(
        input_shape=(image_size, image_size, 3),
        weights=None,
        classes=classes,
        **MODELS[name],
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = NORMALIZATION_MOMENTUM
    model.compile(
        optimizer=keras.optimizers.Adam(WARM_UP_LEARNING_RATE),
        loss="sparse_categorical_crossentropy",
    )
    model.optimizer.build(model.trainable_variables)
    return model


def train_both(
    stock: keras.Model,
    converted: keras.Model,
    images: Images,
    *,
    batch_size: int,
    steps: int,
    seconds: float,
    seed: int,
    progress: Progress,
) -> SideBySide:
    """Trains both on the same batches, then the converted model alone.

    Args:
        stock: a compiled model.
        converted: its converted copy, compiled in the same way.
        images: the images.
        batch_size: images in a batch.
        steps: maximum of timed pairs of steps; fewer, but at least 5, if they would
            take longer than 80 seconds.
        seconds: maximum time that the converted model goes on alone.
        seed: seed of the order of the images.
        progress: shows the progress.
    """
    models = (stock, converted)
    batches = images.training_batches(batch_size, seed)
    first_steps, first_losses = first(models, next(batches), progress)
    losses = [first_losses, timed_pair(train, models, next(batches), turn=0)[1]]
    measured = []
    with progress.phase("side by side", total=steps) as advance:
        for turn in affordable(steps, MIN_PAIRS, PAIRED_SECONDS):
            pair, loss = timed_pair(train, models, next(batches), turn)
            measured.append(pair)
            losses.append(loss)
            advance(1)
    predictions = predict_both(models, next(batches)[0], progress)
    with progress.phase("held-out images", total=2) as advance:
        of_stock = accuracy(stock, images, batch_size)
        advance(1)
        of_converted = accuracy(converted, images, batch_size)
    accuracies = (of_stock, of_converted)
    result = SideBySide(first_steps, measured, losses, predictions, accuracies)
    if seconds > 0:
        go_on_alone(converted, images, batches, batch_size, seconds, result, progress)
    return result


def first(models, batch, progress: Progress) -> tuple[Pair, Pair]:
    """Seconds and losses of each model's first step."""
    with progress.phase("compiling both", total=len(models)) as advance:

        def train_and_show(model, batch):
            loss = train(model, batch)
            advance(1)
            return loss

        return timed_pair(train_and_show, models, batch, turn=0)


def affordable(most: int, fewest: int, seconds: float) -> Iterator[int]:
    """Counts to `most`; past `fewest`, stops once `seconds` are over."""
    start = time.perf_counter()
    for turn in range(most):
        if turn >= fewest and time.perf_counter() - start > seconds:
            return
        yield turn


def timed(function: Callable, model, batch) -> tuple[float, float]:
    """Duration and result of a call."""
    start = time.perf_counter()
    result = function(model, batch)
    return time.perf_counter() - start, result


def timed_pair(function: Callable, models, batch, turn: int) -> tuple[Pair, Pair]:
    """Times a call on both models; in every other turn converted goes first."""
    results = {}
    for index in (0, 1) if turn % 2 == 0 else (1, 0):
        results[index] = timed(function, models[index], batch)
    (stock, from_stock), (converted, from_converted) = results[0], results[1]
    return (stock, converted), (from_stock, from_converted)


def train(model, batch) -> float:
    """Runs one training step to its end and returns the loss."""
    loss = float(backends.keras_internals.train_on_batch(model, *batch))
    # The first layer's kernel is the last to get its gradient.
    backends.active.synchronize([model.trainable_variables[0].value])
    return loss


def predict(model, inputs) -> np.ndarray:
    """Runs one prediction to its end."""
    return np.asarray(model.predict_on_batch(inputs))


def predict_both(models, inputs, progress: Progress) -> list[Pair]:
    """Times predictions, after one that compiles and one warm-up for each model."""
    with progress.phase("predictions", total=MAX_PREDICTIONS) as advance:
        for model in models * 2:
            predict(model, inputs)
        measured = []
        for turn in affordable(MAX_PREDICTIONS, MIN_PREDICTIONS, PREDICTION_SECONDS):
            measured.append(timed_pair(predict, models, inputs, turn)[0])
            advance(1)
    return measured


def accuracy(model, images: Images, batch_size: int) -> float:
    """Accuracy on the held-out images.

    The last batch is filled up with the first images: another size would be compiled
    again.
    """
    count = len(images.labels["held out"])
    indices = np.resize(np.arange(count), -(-count // batch_size) * batch_size)
    right = []
    for chosen in np.split(indices, len(indices) // batch_size):
        inputs, labels = images.batch("held out", chosen)
        right.append(np.argmax(predict(model, inputs), axis=-1) == labels)
    return float(np.mean(np.concatenate(right)[:count]))


def go_on_alone(
    model,
    images: Images,
    batches: Iterator,
    batch_size: int,
    seconds: float,
    result: SideBySide,
    progress: Progress,
) -> None:
    """Trains the converted model until time is up or it is accurate enough.

    The learning rate decays linearly to zero.
    """
    start = time.perf_counter()
    with progress.phase("converted alone", total=seconds) as advance:
        for step in itertools.count(1):
            elapsed = time.perf_counter() - start
            model.optimizer.learning_rate = LEARNING_RATE * (1 - elapsed / seconds)
            result.further_seconds += timed(train, model, next(batches))[0]
            result.further_steps = step
            is_over = time.perf_counter() - start >= seconds
            if is_over or step % STEPS_BETWEEN_LOOKS == 0:
                result.further_accuracy = accuracy(model, images, batch_size)
            advance(time.perf_counter() - start - elapsed)
            good = (result.further_accuracy or 0.0) >= GOOD_ACCURACY
            if is_over or good:
                return


def median_ratio(pairs: list[Pair]) -> float:
    """Median of the paired ratios, stock over converted."""
    return statistics.median(stock / converted for stock, converted in pairs)
