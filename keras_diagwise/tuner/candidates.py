"""The candidates of a pass, and the order in which they are tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from keras_diagwise.algorithms import ALGORITHMS, Algorithm, Native
from keras_diagwise.decision import Decision
from keras_diagwise.problem import Problem
from keras_diagwise.tuner.pruning import PREDICTED_BEHIND


def candidates_of(problem: Problem, pass_name: str) -> list[Algorithm]:
    """Every candidate, native first, each algorithm's most promising ones before its
    others."""
    return [
        candidate
        for algorithm in ALGORITHMS.values()
        for candidate in algorithm.candidates(problem, pass_name)
    ]


def by_promise(
    candidates: Sequence[Algorithm], predicted: Mapping[Algorithm, float]
) -> list[Algorithm]:
    """The candidates: native, then those with a predicted time, fastest first. The
    sooner a fast one is known, the fewer others are run."""

    def order(candidate):
        if isinstance(candidate, Native):
            return 0.0
        return predicted.get(candidate, math.inf)

    return sorted(candidates, key=order)


def likely_best(predicted: Mapping[Algorithm, float]) -> float:
    """An upper estimate of the fastest candidate's seconds, from the predictions."""
    return PREDICTED_BEHIND * min(predicted.values(), default=math.inf)


def is_decided(decision: Decision, pass_name: str) -> bool:
    """Whether every current candidate of a pass has a valid outcome."""
    comparison = decision.passes.get(pass_name)
    if comparison is None or comparison.is_outdated:
        return False
    names = {str(each) for each in candidates_of(decision.problem, pass_name)}
    return names <= set(comparison.outcomes)
