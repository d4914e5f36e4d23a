"""A model's steps, stock against converted, in turn on this machine."""

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
from keras_diagwise.models.variants import Variant, as_stock, by_plans, step_of
from keras_diagwise.tuner.measure import interleaved
from keras_diagwise.tuner.tuner import MEASURING, least_ratio

KINDS = {"training": True, "prediction": False}

MIN_ROUNDS = 5

Phase = Callable[
    [str, float | None], contextlib.AbstractContextManager[Callable[[float], None]]
]
"""Shows a phase of some words and seconds, and yields what takes seconds gone by."""


@dataclasses.dataclass(frozen=True)
class Steps:
    """Steps of one kind, in seconds.

    Attributes:
        stock: median of the stock model's.
        converted: of the converted one's.
        ratio: median of stock's over converted's, round by round.
        at_least: the 95 % bound below it.
        at_most: the 95 % bound above it.
        rounds: how many there were.
        first_stock: the first step of the stock model: trace, compile, run.
        first_converted: of the converted one.
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
    """What was measured of a model.

    Attributes:
        training: its training steps.
        prediction: its predictions.
        difference: the largest difference of the two models' predictions, of equal
            weights, over the root mean square of stock's.
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

    It is compiled anew with a small SGD and a mean squared error, runs on random
    inputs, and is put back as it was.

    Args:
        model: the model.
        batch_size: images in a step.
        seconds: how long each kind of step is timed.
        phase: shows how far it is.

    Raises:
        ValueError: if the shapes of the inputs are not known.
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
    found: dict[str, Steps] = {}
    difference = 0.0
    example = example_of(model, batch_size)
    layers = [layer for _, layer in layers_to_convert(model)]
    ours = [layer for layer in layers if is_one_of_ours(layer)]
    changes = {
        "stock": [as_stock(layer) for layer in layers],
        "converted": [by_plans(layer, plans_of(layer)) for layer in ours],
    }
    with restored(model):
        for kind in reversed(KINDS):  # weights are equal before any training
            step = step_of(model, example, KINDS[kind])
            steps = {name: Variant(model, each, step) for name, each in changes.items()}
            with phase(f"compiling {kind}", None):
                firsts, results = first_steps(steps)
            if kind == "prediction":
                difference = relative_difference(results["stock"], results["converted"])
            with phase(kind, seconds) as advance, MEASURING:
                samples = interleaved(
                    {name: ticking(step, advance) for name, step in steps.items()},
                    (),
                    seconds=seconds,
                    min_rounds=MIN_ROUNDS,
                    max_rounds=10_000,
                )
            found[kind] = steps_found(samples, firsts)
    return Benchmark(found["training"], found["prediction"], difference)


def first_steps(
    steps: Mapping[str, Callable[[], object]],
) -> tuple[dict[str, float], dict[str, object]]:
    """The seconds of each one's first step, and what it returned."""
    seconds, results = {}, {}
    for name, step in steps.items():
        start = time.perf_counter()
        results[name] = step()
        seconds[name] = time.perf_counter() - start
    return seconds, results


def ticking(step: Callable[[], object], advance: Callable[[float], None]):
    """The step, which tells how long it took."""

    def told() -> object:
        start = time.perf_counter()
        result = step()
        advance(time.perf_counter() - start)
        return result

    return told


def steps_found(
    samples: Mapping[str, list[float]], firsts: Mapping[str, float]
) -> Steps:
    """What samples come to."""
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
    """The largest difference over stock's root mean square, of all outputs."""
    largest = 0.0
    for one, other in zip(arrays(stock), arrays(converted), strict=True):
        size = float(np.sqrt(np.mean(np.square(one)))) or 1.0
        largest = max(largest, float(np.max(np.abs(one - other), initial=0.0)) / size)
    return largest


def arrays(outputs: object) -> Iterator[np.ndarray]:
    """The outputs of a model, in float64."""
    for each in keras.tree.flatten(outputs):
        yield np.asarray(keras.ops.convert_to_numpy(each), "float64")
