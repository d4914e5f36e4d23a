"""Measures the speedup of keeping the memory that a training step frees.

    python -m keras_diagwise.cli.kept_memory     (the child process that runs steps)

On a CPU, backends allocate a step's buffers from the C library and free them after it.
glibc returns large ones to the system at once, which has to find and clear their pages
again at the next step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import re
import statistics
import subprocess
import sys
import time

VARIABLE = "GLIBC_TUNABLES"
KEEP_HUGE_PAGES = ":".join(
    [
        "glibc.malloc.hugetlb=1",  # ask for huge pages
        "glibc.malloc.mmap_threshold=8589934592",  # take all from the heap
        "glibc.malloc.trim_threshold=8589934592",  # whose end is kept
    ]
)
FIRST_GLIBC = 2, 35
"""First version of glibc with `glibc.malloc.hugetlb` (its NEWS)."""

BATCH_SIZE, PIXELS, CHANNELS, BLOCKS = 16, 48, 64, 4
"""Dimensions of a model whose 9 MB tensors fit in no cache."""

TURNS = 8
SECONDS_IN_TURN = 0.25


@dataclasses.dataclass(frozen=True)
class StepCost:
    """Seconds of a step.

    Attributes:
        as_it_is: under the environment variables of this process.
        kept: with freed memory kept in huge pages.
        gain: median of the ratios of both, turn by turn.
        gain_at_least: lower 95 % bound of the gain.
    """

    as_it_is: float
    kept: float
    gain: float
    gain_at_least: float


def has_tunables() -> bool:
    """Whether the C library supports `KEEP_HUGE_PAGES`."""
    name, version = platform.libc_ver()
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    return name == "glibc" and numbers >= FIRST_GLIBC


def with_tunables(tunables: str) -> str:
    """The variable's value with tunables appended; glibc takes the last of two that
    conflict."""
    return ":".join(filter(None, [os.environ.get(VARIABLE, ""), tunables]))


def step_cost() -> StepCost:
    """Measures steps in two child processes, interleaved.

    Raises:
        RuntimeError: if a child ends early.
    """
    from keras_diagwise.tuner.measure import lower_bound

    with contextlib.ExitStack() as stack:
        as_it_is = stack.enter_context(Stepping({}))
        kept = stack.enter_context(Stepping({VARIABLE: with_tunables(KEEP_HUGE_PAGES)}))
        for each in (as_it_is, kept):
            each.take_turn()  # the first compiles
        turns = [(as_it_is.take_turn(), kept.take_turn()) for _ in range(TURNS)]
    ratios = [one / other for one, other in turns]
    return StepCost(
        as_it_is=statistics.median(one for one, _ in turns),
        kept=statistics.median(other for _, other in turns),
        gain=statistics.median(ratios),
        gain_at_least=lower_bound(ratios, resamples=500),
    )


class Stepping(contextlib.AbstractContextManager):
    """A child process that runs training steps of a small converted model.

    Args:
        variables: environment variables set for the child only.
    """

    def __init__(self, variables: dict[str, str]):
        from keras_diagwise.tuner.subprocess_runner import child_environment

        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**child_environment(), **variables},
        )

    def take_turn(self) -> float:
        """Median seconds of a step in one turn.

        Raises:
            RuntimeError: if the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            print(file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the child ended by {self._process.wait()}")
        return float(answer)

    def __exit__(self, *exception) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Runs steps for a quarter of a second for each line on stdin."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # prints of backends go to stderr
    step = small_step()
    for _ in sys.stdin:
        samples: list[float] = []
        end = time.perf_counter() + SECONDS_IN_TURN
        while not samples or time.perf_counter() < end:
            start = time.perf_counter()
            step()
            samples.append(time.perf_counter() - start)
        print(statistics.median(samples), file=answers)


def small_step():
    """A training step of a model of depthwise and pointwise convolutions."""
    import keras
    import numpy as np
    from keras import layers

    import keras_diagwise

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


if __name__ == "__main__":
    main()
