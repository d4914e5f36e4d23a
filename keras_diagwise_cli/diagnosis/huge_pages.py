"""Measures the speedup of a training step whose memory is in huge pages."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable

import keras
import numpy as np
from keras import layers

import keras_diagwise
from keras_diagwise.tuner.measure import lower_bound
from keras_diagwise.tuner.subprocess_runner import Child
from keras_diagwise_cli.tunables import VARIABLE, with_huge_pages

BATCH_SIZE, PIXELS, CHANNELS, BLOCKS = 16, 48, 64, 4
"""Dimensions of a model whose 9 MB tensors fit in no cache."""

TURNS = 8
SECONDS_IN_TURN = 0.25
TIMEOUT = 120.0
"""Seconds for a turn; the first one compiles."""


@dataclasses.dataclass(frozen=True)
class StepCost:
    """Seconds of a step.

    Attributes:
        as_it_is: under the environment variables of this process.
        huge_pages: with memory in huge pages.
        gain: median of the ratios of both, turn by turn.
        gain_at_least: lower 95 % bound of the gain.
    """

    as_it_is: float
    huge_pages: float
    gain: float
    gain_at_least: float


def step_cost() -> StepCost:
    """Measures steps in two child processes, interleaved.

    Raises:
        NoChildError: if a child can't be started.
        FailedError: if one ends early, or hangs.
    """
    with contextlib.ExitStack() as stack:

        def started(variables: dict[str, str]) -> Child:
            child = Child(variables)
            stack.callback(child.end)
            return child

        as_it_is = started({})
        huge_pages = started({VARIABLE: with_huge_pages()})
        for each in (as_it_is, huge_pages):
            each.greet(math.inf)
            take_turn(each)  # the first compiles
        turns = [(take_turn(as_it_is), take_turn(huge_pages)) for _ in range(TURNS)]
    ratios = [one / other for one, other in turns]
    return StepCost(
        as_it_is=statistics.median(one for one, _ in turns),
        huge_pages=statistics.median(other for _, other in turns),
        gain=statistics.median(ratios),
        gain_at_least=lower_bound(ratios, resamples=500),
    )


def take_turn(child: Child) -> float:
    """Median seconds of a step in one turn of a child."""
    return child.answer((median_step,), TIMEOUT, math.inf)


def median_step() -> float:
    """Median seconds of the steps of a quarter of a second, in this process."""
    step = small_step()
    samples: list[float] = []
    end = time.perf_counter() + SECONDS_IN_TURN
    while not samples or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


@functools.cache
def small_step() -> Callable[[], object]:
    """A training step of a model of depthwise and pointwise convolutions."""
    inputs = x = keras.Input((PIXELS, PIXELS, CHANNELS))
    for _ in range(BLOCKS):
        x = layers.DepthwiseConv2D(3, padding="same")(x)
        x = layers.Conv2D(CHANNELS, 1)(x)
        x = layers.Activation("relu")(layers.BatchNormalization()(x))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    model.compile("sgd", "mse")
    keras_diagwise.convert(model, verbose=0)
    images = np.ones((BATCH_SIZE, PIXELS, PIXELS, CHANNELS), "float32")
    targets = np.zeros((BATCH_SIZE, CHANNELS), "float32")
    return lambda: model.train_on_batch(images, targets)
