"""Trains a stock model and its converted copy side by side, and times both."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time

import keras
import numpy as np

from keras_diagwise import backends
from keras_diagwise.models.benchmark import (
    MIN_ROUNDS,
    Steps,
    first_steps,
    samples_of,
    steps_found,
)
from keras_diagwise.tuner.measure import MEASURING, by_function, rounds
from keras_diagwise_cli.demo.images import Batches, Images
from keras_diagwise_cli.terminal.progress import Progress

TRAINING_SECONDS = 80.0
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


@dataclasses.dataclass(frozen=True)
class Timed:
    """Times of one kind of step of both models.

    Attributes:
        steps: their statistics.
        samples: the seconds of each step, by model.
    """

    steps: Steps
    samples: dict[str, list[float]]


@dataclasses.dataclass
class SideBySide:
    """Results of both models, by the names `"stock"` and `"converted"`.

    Attributes:
        training: times of the training steps.
        prediction: times of `predict_on_batch`.
        losses: losses of every step on the same batches, including the first and the
            warm-up.
        accuracies: held-out accuracies after the same steps.
        further_steps: further steps of the converted model alone.
        further_seconds: seconds of those steps, without evaluation.
        further_accuracy: held-out accuracy after them, or `None` without any.
    """

    training: Timed
    prediction: Timed
    losses: dict[str, list[float]]
    accuracies: dict[str, float]
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
    models: dict[str, keras.Model],
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
        models: a compiled model, `"stock"`, and its converted copy, `"converted"`.
        images: the images.
        batch_size: images in a batch.
        steps: maximum of timed steps of each; fewer, but at least 5, if they would
            take longer than 80 seconds.
        seconds: maximum time that the converted model goes on alone.
        seed: seed of the order of the images.
        progress: shows the progress.
    """
    batches = Batches(images, batch_size, seed)
    training, losses = timed_training(models, batches, steps, progress)
    prediction = timed_predictions(models, batches.current[0], progress)
    accuracies = {}
    with progress.phase("held-out images", total=2) as advance:
        for name, model in models.items():
            accuracies[name] = accuracy(model, images, batch_size)
            advance(1)
    result = SideBySide(training, prediction, losses, accuracies)
    if seconds > 0:
        go_on_alone(models["converted"], images, batches, seconds, result, progress)
    return result


def timed_training(
    models: dict[str, keras.Model], batches: Batches, steps: int, progress: Progress
) -> tuple[Timed, dict[str, list[float]]]:
    """Times of training steps on the same batches, and the losses of each model."""
    losses: dict[str, list[float]] = {name: [] for name in models}
    calls = {
        name: functools.partial(train_on, model, batches, losses[name])
        for name, model in models.items()
    }
    with progress.phase("compiling training", total=len(models)) as advance:
        firsts, _ = first_steps(calls, advance)
    batches.advance()
    found = []
    with progress.phase("side by side", total=steps) as advance, MEASURING:
        for each in rounds(
            calls,
            (),
            seconds=TRAINING_SECONDS,
            min_rounds=MIN_ROUNDS,
            max_rounds=steps,
            idle_seconds=0.0,
            sample_seconds=0.0,  # one step, so that both take as many
        ):
            found.append(each)
            batches.advance()
            advance(1)
    samples = by_function(found)
    return Timed(steps_found(samples, firsts), samples), losses


def timed_predictions(
    models: dict[str, keras.Model], inputs: np.ndarray, progress: Progress
) -> Timed:
    """Times of predictions of one batch."""
    calls = {
        name: functools.partial(predict, each, inputs) for name, each in models.items()
    }
    with progress.phase("compiling prediction", total=len(models)) as advance:
        firsts, _ = first_steps(calls, advance)
    with progress.phase("predictions", total=PREDICTION_SECONDS) as advance:
        samples = samples_of(calls, PREDICTION_SECONDS, advance, MAX_PREDICTIONS)
    return Timed(steps_found(samples, firsts), samples)


def train_on(model: keras.Model, batches: Batches, losses: list[float]) -> None:
    """Trains on the current batch, and appends the loss."""
    losses.append(train(model, batches.current))


def train(model: keras.Model, batch) -> float:
    """Runs one training step to its end and returns the loss."""
    loss = float(backends.keras_internals.train_on_batch(model, *batch))
    # The first layer's kernel is the last to get its gradient.
    backends.active.synchronize([model.trainable_variables[0].value])
    return loss


def predict(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    """Runs one prediction to its end."""
    return np.asarray(model.predict_on_batch(inputs))


def accuracy(model: keras.Model, images: Images, batch_size: int) -> float:
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
    model: keras.Model,
    images: Images,
    batches: Batches,
    seconds: float,
    result: SideBySide,
    progress: Progress,
) -> None:
    """Trains the converted model until time is up or it is accurate enough.

    The learning rate decays linearly to zero.
    """
    batch_size = len(batches.current[1])
    start = time.perf_counter()
    with progress.phase("converted alone", total=seconds) as advance:
        for step in itertools.count(1):
            elapsed = time.perf_counter() - start
            model.optimizer.learning_rate = LEARNING_RATE * (1 - elapsed / seconds)
            batches.advance()
            before = time.perf_counter()
            train(model, batches.current)
            result.further_seconds += time.perf_counter() - before
            result.further_steps = step
            is_over = time.perf_counter() - start >= seconds
            if is_over or step % STEPS_BETWEEN_LOOKS == 0:
                result.further_accuracy = accuracy(model, images, batch_size)
            advance(time.perf_counter() - start - elapsed)
            good = (result.further_accuracy or 0.0) >= GOOD_ACCURACY
            if is_over or good:
                return
