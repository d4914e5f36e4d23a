"""What the C library's handling of memory costs a computation on a CPU.

Backends take the buffers of each step from the C library and give them back after it.
glibc returns large ones to the system at once, which has to find and clear their pages
anew at the next step.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import statistics

from keras_diagwise.ops import dispatcher
from keras_diagwise.planning.planned_convolution import PlannedConvolution
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.tuner.runner import PassTask
from keras_diagwise.tuner.subprocess_runner import SubprocessRunner

VARIABLE = "GLIBC_TUNABLES"
KEEP_HUGE_PAGES = ":".join(
    [
        "glibc.malloc.hugetlb=1",  # ask for huge pages
        "glibc.malloc.mmap_threshold=8589934592",  # take all from the heap
        "glibc.malloc.trim_threshold=8589934592",  # whose end is kept
    ]
)
FIRST_GLIBC = 2, 35
"""Its first version with `glibc.malloc.hugetlb` (its NEWS)."""

PROBLEM = Problem.from_shapes((16, 48, 48, 96), (3, 3, 1, 96), padding="same")
"""Of MobileNetV2 at 96 pixels; its tensors, of 14 MB, fit no cache."""

TURNS = 4
SECONDS_IN_TURN = 0.2


@dataclasses.dataclass(frozen=True)
class MemoryCost:
    """The seconds of the three passes of `PROBLEM`.

    Attributes:
        as_it_is: under the environment variables of this process.
        kept: where freed memory is kept, in huge pages.
    """

    as_it_is: float
    kept: float

    @property
    def ratio(self) -> float:
        return self.kept / self.as_it_is


def has_tunables() -> bool:
    """Whether the C library is one that `KEEP_HUGE_PAGES` means something to."""
    name, version = platform.libc_ver()
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    return name == "glibc" and numbers >= FIRST_GLIBC


def measure_memory_cost(compiler_mode: str) -> MemoryCost:
    """Measures both in child processes, in turn.

    Args:
        compiler_mode: how the passes are compiled.

    Raises:
        FailedError: if a pass failed.
    """
    plan = dispatcher.answer(PROBLEM, "auto").plan
    convolution = PlannedConvolution(PROBLEM, plan)
    runners = {
        "as_it_is": SubprocessRunner(),
        "kept": SubprocessRunner(variables={VARIABLE: with_tunables(KEEP_HUGE_PAGES)}),
    }
    seconds = dict.fromkeys(runners, 0.0)
    try:
        for pass_name in PASSES:
            task = PassTask(PROBLEM, pass_name, compiler_mode)
            candidate = convolution.algorithm(pass_name)
            samples: dict[str, list[float]] = {name: [] for name in runners}
            for _ in range(TURNS):
                for name, runner in runners.items():
                    taken = runner.time(task, [candidate], SECONDS_IN_TURN, 3)
                    samples[name] += taken[candidate]
            for name, taken_in_all in samples.items():
                seconds[name] += statistics.median(taken_in_all)
    finally:
        for runner in runners.values():
            runner.close()
    return MemoryCost(**seconds)


def with_tunables(tunables: str) -> str:
    """The value of the variable with more tunables than it has; of two that say
    otherwise, glibc takes the last."""
    return ":".join(filter(None, [os.environ.get(VARIABLE, ""), tunables]))
