"""Times functions against each other: interleaved, in shuffled rounds, by medians."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import keras

from keras_diagwise import backends
from keras_diagwise.problem import BYTES_PER_ELEMENT

Name = TypeVar("Name", bound=Hashable)

MAX_CALLS = 1000
"""In one sample."""

MAX_COPIES = 256
"""Of the operands of one call."""


@dataclasses.dataclass(frozen=True)
class TimingPolicy:
    """How a kind of device is measured.

    Attributes:
        sample_seconds: what is faster is called several times for one sample.
        warm_up_seconds: how long it works before the first sample, until clocks have
            settled and libraries have chosen their kernels.
        warm_seconds: how long after the last sample its clocks are settled still.
        rotated_bytes: of operands that calls in a row take in turn, so that none lies
            in a cache still, as none does in a training step; 0 takes the same.
        copied_bytes: of the copies by which the bandwidth is measured, for what fits
            a cache and what does not.
        matrix_size: of the square matrices by which the rate of products is.
    """

    sample_seconds: float
    warm_up_seconds: float
    warm_seconds: float
    rotated_bytes: int
    copied_bytes: tuple[int, ...]
    matrix_size: int


CPU = TimingPolicy(2e-3, 0.0, 0.0, 0, tuple(2**n for n in range(14, 28, 2)), 1024)
ACCELERATOR = TimingPolicy(
    10e-3, 0.3, 2.0, 2**28, tuple(2**n for n in range(14, 32, 2)), 8192
)


def timing_policy() -> TimingPolicy:
    """Those for the device that is computed on."""
    kind = backends.active.environment()["device_kind"]
    return CPU if kind == "cpu" else ACCELERATOR


def interleaved(
    functions: Mapping[Name, Callable[..., Any]],
    operands: Mapping[Name, Sequence[Any]] | Sequence[Any],
    *,
    seconds: float,
    min_rounds: int = 3,
    max_rounds: int = 60,
    seed: int = 0,
    idle_seconds: float = math.inf,
) -> dict[Name, list[float]]:
    """The seconds that calls of each function take, sample by sample.

    The functions take turns in rounds of shuffled order, so that a change in the
    machine's speed meets all of them, and sample i of each belongs to one round. The
    calls of a sample are queued one behind the other, each on the next copy of its
    operands where the `TimingPolicy` says so, and it ends when the device has computed
    the last.

    Args:
        functions: what to time, by name; each is called once before, untimed.
        operands: the operands of all, or of each by name.
        seconds: the time after which no further round begins.
        min_rounds: rounds that are run even if they take longer.
        max_rounds: rounds after which it ends in any case.
        seed: of the order in the rounds.
        idle_seconds: how long ago the last sample was taken on the device.
    """

    ways = timing_policy()
    if isinstance(operands, Mapping):
        copies = {name: copies_of(operands[name], ways) for name in functions}
    else:
        copies = dict.fromkeys(functions, copies_of(operands, ways))
    repeated = {
        name: Repeated(in_turn(function, copies[name]), ways.sample_seconds)
        for name, function in functions.items()
    }
    if idle_seconds >= ways.warm_seconds:
        warm_up(repeated.values(), ways.warm_up_seconds)
    samples: dict[Name, list[float]] = {name: [] for name in functions}
    order = list(functions)
    shuffle = random.Random(seed).shuffle
    end = time.perf_counter() + seconds
    for done in range(max_rounds):
        if done >= min_rounds and time.perf_counter() > end:
            break
        shuffle(order)
        for name in order:
            samples[name].append(seconds_of(repeated[name]) / repeated[name].calls)
    return samples


class Repeated:
    """As many calls as make a sample long enough to time. The first two, by which their
    number is found, are a warm-up.

    Args:
        call: what is called.
        seconds: how long a sample shall be.

    Attributes:
        calls: how many they are.
    """

    def __init__(self, call: Callable[[], Any], seconds: float):
        self._call = call
        backends.active.synchronize(call())
        taken = seconds_of(call)
        self.calls = max(1, min(MAX_CALLS, round(seconds / max(taken, 1e-7))))

    def __call__(self):
        for _ in range(self.calls):
            result = self._call()
        return result


def warm_up(calls: Iterable[Callable[[], Any]], seconds: float) -> None:
    """Keeps the device busy with them for some time."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for call in calls:
            backends.active.synchronize(call())


def seconds_of(run: Callable[[], Any]) -> float:
    """How long the device takes for what `run` queues, until it is computed: by events
    in its own queue where the backend has them, else by the clock here."""
    events = backends.active.device_events()
    if events is None:
        start = time.perf_counter()
        backends.active.synchronize(run())
        return time.perf_counter() - start
    first, last = events
    first.record()
    run()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def copies_of(operands: Sequence[Any], ways: TimingPolicy) -> list[Sequence[Any]]:
    """The operands, and as many copies of them as no cache holds."""
    count = 1
    if ways.rotated_bytes and operands:
        size = sum(map(bytes_of, operands))
        count = min(MAX_COPIES, -(-ways.rotated_bytes // max(size, 1)))
    return [operands, *([each + 0 for each in operands] for _ in range(count - 1))]


def bytes_of(tensor) -> int:
    """The memory that a tensor takes."""
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return math.prod(tensor.shape) * BYTES_PER_ELEMENT[dtype]


def in_turn(
    function: Callable[..., Any], copies: Sequence[Sequence[Any]]
) -> Callable[[], Any]:
    """Calls of `function`, each on the next copy of its operands."""
    turns = itertools.cycle(copies)
    return lambda: function(*next(turns))


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
