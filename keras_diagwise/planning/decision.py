"""A decision: what was measured for one problem in one environment."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Mapping
from typing import Any

from keras_diagwise import algorithms
from keras_diagwise.planning.plan import Plan
from keras_diagwise.problem import PASSES, Problem

FAILURES = (
    "refused",
    "pruned",
    "outpaced",
    "wrong numbers",
    "not finite",
    "exception",
    "timeout",
    "out of memory",
    "crash",
)
"""Why a candidate has no timing: it can't compute the problem; it can't win by
arithmetic, memory or the time to compile it; its first run was far behind; or what
went wrong."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a candidate.

    Attributes:
        seconds: its median time, or `None` if it was not timed.
        error: its largest error against float64, in units of the exact result's
            root mean square; `None` if it was not verified so.
        gain: how many times faster than native it is at least, by the 95 % bound
            of the paired rounds; `None` where there is no such bound.
        failure: one of `FAILURES`, or `None`.
        reason: what `failure` was, in words.
    """

    seconds: float | None = None
    error: float | None = None
    gain: float | None = None
    failure: str | None = None
    reason: str = ""

    def to_dict(self) -> dict:
        """The outcome in JSON's types, without what it does not have."""
        values = dataclasses.asdict(self)
        return {
            name: float(f"{value:.4g}") if isinstance(value, float) else value
            for name, value in values.items()
            if value not in (None, "")
        }

    @classmethod
    def from_dict(cls, values: Mapping) -> Outcome:
        """The outcome that `to_dict` wrote.

        Raises:
            ValueError: if `values` are not an outcome's.
        """
        outcome = cls(**checked(values, "An outcome", OUTCOME_FIELDS))
        numbers = (outcome.seconds, outcome.error, outcome.gain)
        if (
            not all(n is None or is_positive(n) for n in numbers)
            or outcome.failure not in (None, *FAILURES)
            or not isinstance(outcome.reason, str)
            or (outcome.seconds is None) == (outcome.failure is None)
        ):
            raise ValueError(
                f"An outcome must have a time or a failure. Received: {values}"
            )
        return outcome


OUTCOME_FIELDS = frozenset(field.name for field in dataclasses.fields(Outcome))


def is_positive(number: Any) -> bool:
    """Whether `number` is one, not negative, and no larger than a float can be."""
    return type(number) in (int, float) and 0 <= number <= sys.float_info.max


def checked(values: Any, what: str, names: frozenset[str]) -> Any:
    """`values`, if they are a dictionary of no names but these."""
    if not isinstance(values, dict) or not names.issuperset(values):
        raise ValueError(f"{what} must have {sorted(names)}. Received: {values!r}")
    return values


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The candidates of one pass, timed against each other in one run.

    Attributes:
        outcomes: what became of each candidate, by its name.
        measured: when, in UTC, as ISO 8601.
        least: the least possible time by what the device can do, measured in the
            same run: the larger of the problem's least bytes over the bandwidth of
            a copy and its useful arithmetic over the rate of a matrix product.
        overruled: why native serves all the same, or `None`.
    """

    outcomes: Mapping[str, Outcome]
    measured: str
    least: float | None = None
    overruled: str | None = None

    @property
    def seconds(self) -> dict[str, float]:
        """The median time of each candidate that was timed."""
        return {
            name: outcome.seconds
            for name, outcome in self.outcomes.items()
            if outcome.seconds is not None
        }

    def winner(self, margin: float, asking: Problem) -> str:
        """The candidate to run for `asking`, that must be `margin` times faster
        than native to serve in its place; a native that failed never serves if
        another can."""
        seconds = {n: s for n, s in self.seconds.items() if can_compute(n, asking)}
        if self.overruled or not seconds:
            return "native"
        fastest = min(seconds, key=lambda name: (seconds[name], name))
        if "native" not in seconds:
            failed = self.outcomes.get("native", Outcome()).failure
            return fastest if failed else "native"
        surely = self.outcomes[fastest].gain
        if seconds["native"] < margin * seconds[fastest] or (surely or 1) < 1:
            return "native"
        return fastest

    @property
    def rank(self) -> tuple:
        """By which of two comparisons the greater is kept."""
        return len(self.outcomes), self.measured, self.digest

    @functools.cached_property
    def digest(self) -> str:
        """A short name that only these measurements have."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict:
        """The comparison in JSON's types; `from_dict` is the way back."""
        outcomes = {name: each.to_dict() for name, each in self.outcomes.items()}
        values: dict[str, Any] = {"measured": self.measured, "outcomes": outcomes}
        if self.least is not None:
            values["least"] = float(f"{self.least:.4g}")
        return values | ({"overruled": self.overruled} if self.overruled else {})

    @classmethod
    def from_dict(cls, values: Mapping) -> Comparison:
        """The comparison that `to_dict` wrote.

        Raises:
            ValueError: if `values` are not a comparison's.
        """
        checked(values, "A comparison", COMPARISON_FIELDS)
        overruled, least = values.get("overruled"), values.get("least")
        if (
            not isinstance(values.get("measured"), str)
            or not isinstance(values.get("outcomes"), dict)
            or not isinstance(overruled, str | None)
            or not (least is None or is_positive(least))
        ):
            raise ValueError(
                "A comparison must have outcomes and the time when it was measured. "
                f"Received: {values!r}"
            )
        outcomes = {
            n: Outcome.from_dict(each) for n, each in values["outcomes"].items()
        }
        return cls(outcomes, values["measured"], least, overruled)


COMPARISON_FIELDS = frozenset(field.name for field in dataclasses.fields(Comparison))


@dataclasses.dataclass(frozen=True)
class Decision:
    """What was measured for a problem.

    Attributes:
        problem: the problem.
        passes: the comparison of each pass that was measured.
    """

    problem: Problem
    passes: Mapping[str, Comparison]

    def plan(self, margin: float, problem: Problem | None = None) -> Plan:
        """The winner of each pass, native where none was measured.

        Args:
            margin: how many times faster than native a candidate must be to serve
                in its place.
            problem: the problem that asks, if it is not the one measured.
        """
        asking = problem or self.problem
        return Plan(
            **{name: each.winner(margin, asking) for name, each in self.passes.items()}
        )

    def gain(self, plan: Plan) -> float | None:
        """How many times faster than native the three passes of `plan` were
        together, or `None` where one was not timed."""
        try:
            seconds = {name: self.passes[name].seconds for name in PASSES}
            native = sum(seconds[name]["native"] for name in PASSES)
            return native / sum(seconds[name][getattr(plan, name)] for name in PASSES)
        except KeyError:
            return None

    def __or__(self, other: Decision) -> Decision:
        """Both together: for each pass the comparison of more candidates, else
        the later one. Timings of two runs are never mixed in one pass."""
        passes = {
            name: max(
                (each.passes[name] for each in (self, other) if name in each.passes),
                key=lambda comparison: comparison.rank,
            )
            for name in PASSES
            if name in self.passes or name in other.passes
        }
        return Decision(self.problem, passes)

    def check(self) -> None:
        """Checks that each candidate that was timed fits the problem.

        Raises:
            ValueError: if one names no algorithm, does not fit, or needs more
                memory than is sane.
        """
        for comparison in self.passes.values():
            for name in comparison.seconds:
                algorithm = algorithms.parse(name)
                algorithm.check(self.problem)
                needed = algorithm.work(self.problem).bytes
                allowed = max(SANE_BYTES, SANE_MULTIPLE * self.problem.least_bytes)
                if needed > allowed:
                    raise ValueError(
                        f"{name!r} would need {needed / 2**30:.1f} GiB for "
                        f"{self.problem}, more than {allowed / 2**30:.1f} GiB"
                    )

    def to_dict(self) -> dict:
        """The decision in JSON's types; `from_dict` is the way back."""
        passes = {name: each.to_dict() for name, each in self.passes.items()}
        return {"problem": self.problem.to_dict(), "passes": passes}

    @classmethod
    def from_dict(cls, values: Mapping) -> Decision:
        """The decision that `to_dict` wrote.

        Raises:
            ValueError: if `values` are not a decision's, or a candidate that was
                timed does not fit the problem.
        """
        checked(values, "A decision", DECISION_FIELDS)
        checked(values.get("passes"), "The passes", frozenset(PASSES))
        decision = cls(
            Problem.from_dict(values.get("problem", {})),
            {n: Comparison.from_dict(each) for n, each in values["passes"].items()},
        )
        decision.check()
        return decision


DECISION_FIELDS = frozenset(field.name for field in dataclasses.fields(Decision))

SANE_BYTES = 2**30
SANE_MULTIPLE = 8
"""A candidate may move that many bytes, or that many times the least that the
problem must: what needs more is a mistake or malice."""


def can_compute(algorithm: str, problem: Problem) -> bool:
    """Whether an algorithm's parameters fit a problem and it can compute it."""
    parsed = algorithms.parse(algorithm)
    try:
        parsed.check(problem)
    except ValueError:
        return False
    return parsed.refusal(problem) is None
