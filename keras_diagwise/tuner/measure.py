"""Times functions against each other: interleaved, in shuffled rounds, by medians."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import statistics
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import keras

from keras_diagwise import backends
from keras_diagwise.problem import BYTES_PER_ELEMENT

Name = TypeVar("Name", bound=Hashable)

MAX_CALLS = 1000
"""Most calls in one sample."""

MAX_COPIES = 256
"""Most copies of the operands of a call."""

RESAMPLES = 400
"""Resamples of a bootstrap bound."""

MEASURING = threading.Lock()
"""Held while a pass is measured, so that no other thread of this process disturbs it or
measures it too."""


@dataclasses.dataclass(frozen=True)
class TimingPolicy:
    """How a kind of device is measured.

    Attributes:
        sample_seconds: length of a sample, for which faster functions are called
            several times.
        warm_up_seconds: length of the warm-up before the first sample, until clocks
            have settled and libraries have chosen their kernels.
        warm_seconds: time after a sample for which the device stays warm.
        rotated_bytes: size of the copies of operands among which consecutive calls
            rotate, so that none is still in a cache, as in a training step; 0 for no
            rotation.
        copied_bytes: sizes of the copies that measure the bandwidth, within and beyond
            the caches.
        matrix_size: size of the square matrices that measure the rate of products.
    """

    sample_seconds: float
    warm_up_seconds: float
    warm_seconds: float
    rotated_bytes: int
    copied_bytes: tuple[int, ...]
    matrix_size: int

    def smaller(self) -> TimingPolicy | None:
        """A policy that takes less memory to measure a roofline, or `None` if copies
        would fit the caches, or products be too short."""
        if self.matrix_size <= MIN_MATRIX_SIZE:
            return None
        return dataclasses.replace(
            self,
            copied_bytes=self.copied_bytes[:-1],
            matrix_size=self.matrix_size // 2,
        )


MIN_MATRIX_SIZE = 1024
"""Smallest matrices whose product takes long enough to measure its rate."""

CPU = TimingPolicy(2e-3, 0.0, 0.0, 0, tuple(2**n for n in range(14, 28, 2)), 1024)
ACCELERATOR = TimingPolicy(
    10e-3, 0.3, 2.0, 2**28, tuple(2**n for n in range(14, 32, 2)), 8192
)


def timing_policy() -> TimingPolicy:
    """The policy for the active device."""
    kind = backends.active.environment()["device_kind"]
    return CPU if kind == "cpu" else ACCELERATOR


def interleaved(
    functions: Mapping[Name, Callable[..., Any]],
    operands: Mapping[Name, Sequence[Any]] | Sequence[Any],
    **settings: Any,
) -> dict[Name, list[float]]:
    """The seconds that calls of each function take, sample by sample.

    Args:
        functions: what to time, by name.
        operands: the operands of all functions, or of each by name.
        **settings: the other arguments of `rounds`.
    """
    return by_function(list(rounds(functions, operands, **settings)))


def by_function(found: Sequence[Mapping[Name, float]]) -> dict[Name, list[float]]:
    """The samples of each function, in the order of the rounds found."""
    return {name: [each[name] for each in found] for name in found[0]}


def rounds(
    functions: Mapping[Name, Callable[..., Any]],
    operands: Mapping[Name, Sequence[Any]] | Sequence[Any],
    *,
    seconds: float,
    min_rounds: int = 3,
    max_rounds: int = 60,
    seed: int = 0,
    idle_seconds: float = math.inf,
    sample_seconds: float | None = None,
) -> Iterator[dict[Name, float]]:
    """Yields round by round the seconds that a call of each function takes.

    The functions take turns in rounds of shuffled order, so that a change in the
    machine's speed affects all of them. The calls of a sample are queued one after
    another, each on the next copy of its operands if the `TimingPolicy` says so. The
    sample ends when the device has computed the last.

    Args:
        functions: what to time, by name; each is called once before, untimed.
        operands: the operands of all functions, or of each by name.
        seconds: the time after which no further round begins.
        min_rounds: rounds that are run even if they take longer.
        max_rounds: most rounds in any case.
        seed: seed of the order within rounds.
        idle_seconds: how long ago the last sample was taken on the device.
        sample_seconds: length of a sample, if other than the `TimingPolicy`'s; with 0
            each is one call.
    """
    policy = timing_policy()
    if isinstance(operands, Mapping):
        copies = {name: copies_of(operands[name], policy) for name in functions}
    else:
        copies = dict.fromkeys(functions, copies_of(operands, policy))
    length = policy.sample_seconds if sample_seconds is None else sample_seconds
    repeated = {
        name: Repeated(in_turn(function, copies[name]), length)
        for name, function in functions.items()
    }
    if idle_seconds >= policy.warm_seconds:
        warm_up(repeated.values(), policy.warm_up_seconds)
    order = list(functions)
    shuffle = random.Random(seed).shuffle
    end = time.perf_counter() + seconds
    for done in range(max_rounds):
        if done >= min_rounds and time.perf_counter() > end:
            break
        shuffle(order)
        taken = {
            name: seconds_of(repeated[name]) / repeated[name].calls for name in order
        }
        yield {name: taken[name] for name in functions}


class Repeated:
    """As many calls as make a sample long enough to time. The first two determine their
    number, and are a warm-up.

    Args:
        call: what to call.
        seconds: intended length of a sample.

    Attributes:
        calls: number of calls in a sample.
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
    """Keeps the device busy with `calls` for some time."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for call in calls:
            backends.active.synchronize(call())


def seconds_of(run: Callable[[], Any]) -> float:
    """Seconds that the device takes to compute what `run` queues: by events in its own
    queue where the backend has them, else by the host's clock."""
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
    """The operands, and enough copies of them to exceed any cache."""
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
    """The one-sided lower 95 % bootstrap bound of the median of paired ratios."""
    draw = random.Random(0)
    resampled = sorted(
        statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(resamples)
    )
    return resampled[resamples // 20]


def medians(samples: Mapping[Name, Sequence[float]]) -> dict[Name, float]:
    """The median of each function's samples."""
    return {name: statistics.median(taken) for name, taken in samples.items()}


def least_ratio(native: Sequence[float], taken: Sequence[float]) -> float:
    """The lower 95 % bootstrap bound of the median ratio of native's time to another's,
    round by round."""
    ratios = [one / other for one, other in zip(native, taken, strict=True)]
    return lower_bound(ratios, RESAMPLES)
