"""Pruning: which candidates can't win, known before they run."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence

from keras_diagwise.algorithms import Algorithm
from keras_diagwise.algorithms.limits import MAX_OPERATIONS
from keras_diagwise.durations import duration
from keras_diagwise.problem import Problem
from keras_diagwise.similarity import bucket
from keras_diagwise.tuner.roofline import Roofline

MAX_COMPILE_SECONDS = 5.0
MAX_MEMORY_MULTIPLE = 8
"""Most memory of a candidate, in multiples of the problem's least bytes."""

BEHIND = 4.0
HOPELESS = 64.0
"""A family is given up on a kind of problem once each of its candidates was at least
`BEHIND` times slower than the best (on GPUs less, see `SpeedHistory`), and the product
of these factors reaches `HOPELESS`."""

SCOUTS = 3
"""Candidates of a family that are compiled before one of them has run."""

PREDICTED_BEHIND = 1.5
"""A candidate is not run if its predicted time exceeds the best prediction by this
factor. Between two candidates of one algorithm the predictions err by less."""


class SpeedHistory:
    """Results so far by family, the candidates of one algorithm and lowering: speeds
    for each pass of the problems of one bucket, compile times for all problems.

    Args:
        behind: how many times slower than the best each candidate of a family must be
            for the family to be given up.
    """

    def __init__(self, behind: float = BEHIND) -> None:
        self._min_behind = behind
        self._behind: dict[tuple, list[float]] = collections.defaultdict(list)
        self._compile_seconds: dict[str, float] = collections.defaultdict(float)

    def learn_speed(
        self, candidate: Algorithm, problem: Problem, pass_name: str, behind: float
    ) -> None:
        """Records how many times slower than the best a candidate was."""
        self._behind[candidate.family, bucket(problem), pass_name].append(behind)

    def is_enough(self, candidate: Algorithm, problem: Problem, pass_name: str) -> bool:
        """Whether enough candidates of the family were tried to give it up."""
        tried = len(self._tried(candidate, problem, pass_name))
        return self._min_behind**tried >= HOPELESS

    def _tried(self, candidate, problem, pass_name) -> Sequence[float]:
        return self._behind.get((candidate.family, bucket(problem), pass_name), ())

    def learn_compilation(
        self, candidate: Algorithm, problem: Problem, seconds: float
    ) -> None:
        """Records the compile time of a candidate, per operation."""
        operation = seconds / candidate.work(problem).operations
        known = self._compile_seconds[candidate.family]
        self._compile_seconds[candidate.family] = max(operation, known)

    def why_hopeless(
        self, candidate: Algorithm, problem: Problem, pass_name: str
    ) -> str | None:
        """Why a candidate's family is given up, or `None`."""
        behind = self._tried(candidate, problem, pass_name)
        least = min(behind, default=0.0)
        if least < self._min_behind or math.prod(behind) < HOPELESS:
            return None
        return (
            f"{len(behind)} candidates like it were at least {min(behind):.0f} times "
            "slower than the best"
        )

    def compile_seconds(self, candidate: Algorithm, problem: Problem) -> float:
        """The predicted compile time of a candidate."""
        operations = candidate.work(problem).operations
        return operations * self._compile_seconds[candidate.family]


def why_outpredicted(seconds: float, best: float) -> str | None:
    """Why a candidate is not even compiled, or `None`.

    Args:
        seconds: its predicted time.
        best: the least predicted time of a candidate.
    """
    if seconds <= PREDICTED_BEHIND * best:
        return None
    return (
        f"it is predicted to take {duration(seconds)}, and another candidate "
        f"{duration(best)}"
    )


def why_pruned(
    candidate: Algorithm,
    problem: Problem,
    pass_name: str,
    *,
    best: float,
    roofline: Roofline | None,
    history: SpeedHistory | None,
) -> str | None:
    """Why a candidate can't win, or `None`.

    Args:
        candidate: the candidate, not native.
        problem: the problem.
        pass_name: the pass.
        best: seconds of the fastest candidate so far.
        roofline: the device's, or `None` if it is unknown.
        history: results of earlier candidates; with `None` only arithmetic and memory
            rule a candidate out.
    """
    work = candidate.work(problem)
    least = roofline.arithmetic_seconds(work) if roofline else 0.0
    if least > best:
        return (
            f"its arithmetic alone takes {duration(least)}, and the best so far "
            f"{duration(best)}"
        )
    if work.bytes > MAX_MEMORY_MULTIPLE * problem.least_bytes + 2**20:
        return (
            f"it needs {work.bytes / 2**20:.0f} MiB, more than {MAX_MEMORY_MULTIPLE} "
            "times the least"
        )
    if history is None:
        return None
    compiling = history.compile_seconds(candidate, problem)
    if work.operations > MAX_OPERATIONS or compiling > MAX_COMPILE_SECONDS:
        return f"its {work.operations} operations would take too long to compile"
    return history.why_hopeless(candidate, problem, pass_name)
