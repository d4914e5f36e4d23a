"""Times functions against each other: interleaved, in shuffled rounds, by medians."""

from __future__ import annotations

import functools
import random
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from keras_diagwise import backends

Name = TypeVar("Name", bound=Hashable)

SHORTEST_SAMPLE = 2e-3
"""Seconds: what is faster is called several times for one sample."""


def interleaved(
    functions: Mapping[Name, Callable[..., Any]],
    operands: Mapping[Name, Sequence[Any]] | Sequence[Any],
    *,
    seconds: float,
    least_rounds: int = 3,
    most_rounds: int = 60,
    seed: int = 0,
) -> dict[Name, list[float]]:
    """The seconds that calls of each function take, sample by sample.

    The functions take turns in rounds of shuffled order, so that a change in the
    machine's speed meets all of them, and sample i of each belongs to one round.

    Args:
        functions: what to time, by name; each is called once before, untimed.
        operands: the operands of all, or of each by name.
        seconds: the time after which no further round begins.
        least_rounds: rounds that are run even if they take longer.
        most_rounds: rounds after which it ends in any case.
        seed: of the order in the rounds.
    """

    def call(name):
        given = operands[name] if isinstance(operands, Mapping) else operands
        return functions[name](*given)

    calls = {
        name: calls_per_sample(functools.partial(call, name)) for name in functions
    }
    samples: dict[Name, list[float]] = {name: [] for name in functions}
    order = list(functions)
    shuffle = random.Random(seed).shuffle
    end = time.perf_counter() + seconds
    for done in range(most_rounds):
        if done >= least_rounds and time.perf_counter() > end:
            break
        shuffle(order)
        for name in order:
            start = time.perf_counter()
            for _ in range(calls[name]):
                result = call(name)
            backends.active.synchronize(result)
            samples[name].append((time.perf_counter() - start) / calls[name])
    return samples


def calls_per_sample(call: Callable[[], Any]) -> int:
    """How many calls make a sample long enough to time; the first is a warm-up."""
    backends.active.synchronize(call())
    start = time.perf_counter()
    backends.active.synchronize(call())
    taken = time.perf_counter() - start
    return max(1, min(100, round(SHORTEST_SAMPLE / max(taken, 1e-7))))


def lower_bound(ratios: Sequence[float], resamples: int) -> float:
    """The 95 % bootstrap bound below the median of paired ratios."""
    draw = random.Random(0)
    resampled = sorted(
        statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(resamples)
    )
    return resampled[resamples // 20]


def medians(samples: Mapping[Name, Sequence[float]]) -> dict[Name, float]:
    """The median of each function's samples."""
    return {name: statistics.median(taken) for name, taken in samples.items()}
