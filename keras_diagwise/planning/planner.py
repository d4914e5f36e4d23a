"""The planner: problem → plan, by the ladder."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from pathlib import Path

from keras_diagwise.algorithms import Direct, Native
from keras_diagwise.planning.decision import Decision, Document
from keras_diagwise.planning.environment import Environment
from keras_diagwise.planning.plan import NATIVE, Plan
from keras_diagwise.problem import Problem

SHIPPED = Path(__file__).with_name("shipped")

MARGIN_MEASURED = 1.03
MARGIN_NEAREST = 1.2
MARGIN_OTHER_DEVICE = 2.0
"""How many times faster than native a candidate must have been: the further the
rung, the more."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """A plan, and where it comes from.

    Attributes:
        plan: the plan.
        rung: `"layer"` (given by the user), `"decision"` (measured for this
            problem in this environment), `"nearest"` (for the nearest problem
            measured in it), `"other device"` (the same on another device of the
            kind), or `"native"` (nothing was measured).
        decision: what was measured, if anything.
    """

    plan: Plan
    rung: str
    decision: Decision | None = None


class Planner:
    """Answers problems from documents of decisions."""

    def __init__(self, documents: Iterable[Document]):
        self._documents = tuple(documents)

    @classmethod
    @functools.cache
    def shipped(cls) -> Planner:
        """The planner of the decisions that come with the package."""
        return cls(Document.read(path) for path in sorted(SHIPPED.glob("*.json")))

    def plan(self, problem: Problem, environment: Environment) -> Answer:
        """The plan of `problem` in `environment`."""
        for here, document in sorted(
            (document.environment != environment, i)
            for i, document in enumerate(self._documents)
            if environment.is_same_kind(document.environment)
        ):
            answer = nearest(problem, self._documents[document], here)
            if answer is not None:
                return answer
        return Answer(least_plan(problem), "native")


def nearest(problem: Problem, document: Document, other_device: bool) -> Answer | None:
    """The answer of one document, or `None` if nothing in it is near."""
    if not problem.has_static_spatial_shape:
        return None
    near = [
        each for each in document.decisions if bucket(each.problem) == bucket(problem)
    ]
    if not near:
        return None
    largest = max(each.problem.batch or 1 for each in near)
    batch = largest if problem.batch is None else problem.batch
    sought = dataclasses.replace(problem, batch=batch)
    decision = min(
        near, key=lambda each: (distance(sought, each.problem), str(each.problem))
    )
    if other_device:
        rung, margin = "other device", MARGIN_OTHER_DEVICE
    elif decision.problem == problem:
        rung, margin = "decision", MARGIN_MEASURED
    else:
        rung, margin = "nearest", MARGIN_NEAREST
    return Answer(decision.plan(margin, problem), rung, decision)


def bucket(problem: Problem) -> tuple:
    """What a decision must have in common with a problem to speak for it."""
    return (
        problem.channels_per_group,
        problem.filters_per_group,
        problem.kernel_size,
        problem.strides,
        problem.dilation_rate,
        problem.padding,
        problem.data_format,
        problem.dtype,
    )


def distance(one: Problem, other: Problem) -> float:
    """Between the logarithms of batch × pixels and of channels. Rounded, so that
    what is as far is equal everywhere."""

    def logarithms(problem):
        size = (problem.batch or 1) * max(1, math.prod(problem.spatial_shape))
        return math.log(size), math.log(problem.channels)

    return round(math.dist(logarithms(one), logarithms(other)), 9)


def least_plan(problem: Problem) -> Plan:
    """The plan of a problem about which nothing is known: `native`, or `direct`
    where only that can compute it."""
    if Native().refusal(problem) is None or Direct().refusal(problem) is not None:
        return NATIVE
    return Plan("direct", "direct", "direct")
