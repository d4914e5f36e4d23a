"""Interleaved timing of a model's steps, stock against converted."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np

from keras_diagwise.layers.base import plans_of
from keras_diagwise.models.example import example_of
from keras_diagwise.models.problems import layers_to_convert
from keras_diagwise.models.snapshot import restored
from keras_diagwise.models.survey import is_one_of_ours
from keras_diagwise.models.swap import Change
from keras_diagwise.models.variants import Variant, as_stock, by_plans, step_of
from keras_diagwise.tuner.measure import MEASURING, by_function, least_ratio, rounds

KINDS = {"training": True, "prediction": False}

MIN_ROUNDS, MAX_ROUNDS = 5, 10_000

Phase = Callable[
    [str, float | None], contextlib.AbstractContextManager[Callable[[float], None]]
]
"""Shows a phase by its label and amount of work; yields a callback for progress."""


@dataclasses.dataclass(frozen=True)
class Steps:
    """Steps of one kind, in seconds.

    Attributes:
        stock: median of the stock model.
        converted: median of the converted model.
        ratio: median of the per-round ratios, stock over converted.
        at_least: lower one-sided 95 % bound of the ratio.
        at_most: upper one-sided 95 % bound of the ratio.
        rounds: number of rounds.
        first_stock: the stock model's first step: trace, compile, run.
        first_converted: the converted model's first step.
    """

    stock: float
    converted: float
    ratio: float
    at_least: float
    at_most: float
    rounds: int
    first_stock: float
    first_converted: float


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Measurements of a model.

    Attributes:
        training: its training steps.
        prediction: its predictions.
        difference: largest difference between the two models' predictions, with equal
            weights, over the root mean square of stock's; NaN or infinite if a number
            is so in one of them only.
    """

    training: Steps
    prediction: Steps
    difference: float

    def to_dict(self) -> dict:
        """The figures in JSON's types."""
        return dataclasses.asdict(self)


def benchmark(
    model: keras.Model,
    *,
    batch_size: int,
    seconds: float,
    phase: Phase,
) -> Benchmark:
    """Times the steps of a converted model, as it is and with stock layers.

    The model is recompiled with a small SGD and a mean squared error, unless it has its
    own `train_step` or `compute_loss`, runs on random inputs, and is restored.

    Args:
        model: the model.
        batch_size: images in a step.
        seconds: how long each kind of step is timed.
        phase: shows progress.

    Raises:
        ValueError: if the shape of an input is unknown.
    """
    check_inputs_known(model)
    found: dict[str, Steps] = {}
    difference = 0.0
    example = example_of(model, batch_size)
    changes = changes_of(model)
    with restored(model):
        for kind in reversed(KINDS):  # weights are equal before any training
            step = step_of(model, example, KINDS[kind])
            steps = {name: Variant(model, each, step) for name, each in changes.items()}
            with phase(f"compiling {kind}", len(steps)) as advance:
                firsts, results = first_steps(steps, advance)
            if kind == "prediction":
                difference = relative_difference(results["stock"], results["converted"])
            with phase(kind, seconds) as advance:
                samples = samples_of(steps, seconds, advance)
            found[kind] = steps_found(samples, firsts)
    return Benchmark(found["training"], found["prediction"], difference)


def check_inputs_known(model: keras.Model) -> None:
    """Checks that random inputs can be made for a model.

    Raises:
        ValueError: if the shape of an input is unknown.
    """
    if not getattr(model, "inputs", None):
        raise ValueError(
            "The model must be a graph of layers, whose inputs' shapes are known. "
            f"Received: {model.name!r}, a {type(model).__name__}"
        )
    if any(None in each.shape[1:] for each in model.inputs):
        raise ValueError(
            "The model's inputs must have sizes that are known: build it on such a "
            "keras.Input to time it. Received: shapes "
            f"{[each.shape for each in model.inputs]}"
        )


def changes_of(model: keras.Model) -> dict[str, list[Change]]:
    """The changes that make a model stock, and converted as it is."""
    layers = [layer for _, layer in layers_to_convert(model)]
    ours = [layer for layer in layers if is_one_of_ours(layer)]
    return {
        "stock": [as_stock(layer) for layer in layers],
        "converted": [by_plans(layer, plans_of(layer)) for layer in ours],
    }


def first_steps(
    steps: Mapping[str, Callable[[], object]], advance: Callable[[float], None]
) -> tuple[dict[str, float], dict[str, object]]:
    """Duration and result of each step's first call; advances by 1 after each."""
    seconds, results = {}, {}
    for name, step in steps.items():
        start = time.perf_counter()
        results[name] = step()
        seconds[name] = time.perf_counter() - start
        advance(1)
    return seconds, results


def samples_of(
    steps: Mapping[str, Callable[[], object]],
    seconds: float,
    advance: Callable[[float], None],
    max_rounds: int = MAX_ROUNDS,
) -> dict[str, list[float]]:
    """The seconds of each step, round by round, until `seconds` are over; advances by
    the seconds of each round."""
    found = []
    with MEASURING:
        start = time.perf_counter()
        for each in rounds(
            steps, (), seconds=seconds, min_rounds=MIN_ROUNDS, max_rounds=max_rounds
        ):
            found.append(each)
            end = time.perf_counter()
            advance(end - start)
            start = end
    return by_function(found)


def steps_found(
    samples: Mapping[str, list[float]], firsts: Mapping[str, float]
) -> Steps:
    """Statistics of the samples."""
    stock, converted = samples["stock"], samples["converted"]
    return Steps(
        stock=statistics.median(stock),
        converted=statistics.median(converted),
        ratio=statistics.median(
            one / other for one, other in zip(stock, converted, strict=True)
        ),
        at_least=least_ratio(stock, converted),
        at_most=1 / least_ratio(converted, stock),
        rounds=len(stock),
        first_stock=firsts["stock"],
        first_converted=firsts["converted"],
    )


def relative_difference(stock: object, converted: object) -> float:
    """Largest difference over stock's root mean square, across all outputs; NaN or
    infinite if a number is so in one of them only."""
    largest = 0.0
    for one, other in zip(arrays(stock), arrays(converted), strict=True):
        differs = (one != other) & ~(np.isnan(one) & np.isnan(other))
        apart = np.abs(one[differs] - other[differs])
        finite = one[np.isfinite(one)]
        size = np.sqrt(np.mean(np.square(finite))) if finite.size else 0.0
        # Unlike max(), it keeps a NaN.
        largest = np.maximum(largest, np.max(apart, initial=0.0) / (size or 1.0))
    return float(largest)


def arrays(outputs: object) -> Iterator[np.ndarray]:
    """The outputs of a model, in float64."""
    for each in keras.tree.flatten(outputs):
        yield np.asarray(keras.ops.convert_to_numpy(each), "float64")
