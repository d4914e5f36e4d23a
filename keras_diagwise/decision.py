"""A decision: the measurements of one problem in one environment."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from keras_diagwise import algorithms
from keras_diagwise.algorithms.limits import can_serve, sane_bytes
from keras_diagwise.plan import Plan
from keras_diagwise.precision import STANDARD, STRICT, allowed_error
from keras_diagwise.problem import PASSES, Problem

MISHAPS = (
    "wrong numbers",
    "not finite",
    "exception",
    "timeout",
    "out of memory",
    "crash",
)
FAILURES = ("refused", "pruned", "outpaced", *MISHAPS)
"""Why a candidate has no timing: it can't compute the problem; its arithmetic, memory
or compile time rules it out; its first run was far slower; or one of `MISHAPS`."""


SURE_FAILURES = ("refused", "wrong numbers", "not finite", "exception")
"""Failures that do not depend on the load of the device at the time."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of measuring a candidate. Numbers are kept to four digits.

    Attributes:
        seconds: its median time, or `None` if it was not timed.
        error: its largest error against float64, in units of the exact result's
            root mean square; `None` if it was not verified so.
        gain: its speedup over native, as the lower 95 % bound of paired rounds;
            `None` without such a bound.
        failure: one of `FAILURES`, or `None`.
        reason: the failure, in words.
        excess: for wrong numbers, the largest ratio of an element's error to the error
            that rounding explains.
    """

    seconds: float | None = None
    error: float | None = None
    gain: float | None = None
    failure: str | None = None
    reason: str = ""
    excess: float | None = None

    def __post_init__(self):
        for name in NUMBERS:
            object.__setattr__(self, name, to_four_digits(getattr(self, name)))
        object.__setattr__(self, "reason", self.reason[:MAX_LETTERS])

    def to_dict(self) -> dict:
        """The outcome as JSON types, without empty fields."""
        return {n: v for n, v in vars(self).items() if v not in (None, "")}

    @classmethod
    def from_dict(cls, values: Mapping) -> Outcome:
        """The outcome written by `to_dict`.

        Raises:
            ValueError: if `values` is not an outcome.
        """
        checked(values, "An outcome", OUTCOME_FIELDS)
        failure = values.get("failure")
        seconds = values.get("seconds")
        if (
            not all(
                is_positive(values[n]) for n in NUMBERS if values.get(n) is not None
            )
            or not (seconds is None or is_duration(seconds))
            or failure not in (None, *FAILURES)
            or not isinstance(values.get("reason", ""), str)
            or (seconds is None) == (failure is None)
        ):
            raise ValueError(
                "An outcome must have a failure, or a time of a nanosecond to a day, "
                f"and numbers that are not negative. Received: {values!r}"
            )
        return cls(**values)


OUTCOME_FIELDS = frozenset(field.name for field in dataclasses.fields(Outcome))
NUMBERS = ("seconds", "error", "gain", "excess")

SHORTEST, LONGEST = 1e-9, 86400.0
"""Plausible times of a pass, in seconds."""
MAX_NUMBER = 1e18
"""Largest plausible error or ratio."""
CLOCKS_DIFFER = datetime.timedelta(days=1)

MAX_LETTERS = 500
"""Longest reason; longer ones are cut off."""
MAX_CANDIDATES = 200
MAX_LETTERS_OF_A_NAME = 100
"""Limits of a comparison; more is a mistake or malicious."""


def to_four_digits(number: float | None) -> float | None:
    """`number` rounded to four significant digits."""
    return None if number is None else float(f"{number:.4g}")


def is_moment(text: Any) -> bool:
    """Whether `text` is an ISO 8601 time in UTC, to the second."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return False
    return text.endswith("+00:00") and moment.isoformat(timespec="seconds") == text


def is_positive(number: Any) -> bool:
    """Whether `number` is a plausible number that is not negative."""
    return type(number) in (int, float) and 0 <= number <= MAX_NUMBER


def is_duration(seconds: Any) -> bool:
    """Whether `seconds` is a plausible time of a pass."""
    return type(seconds) in (int, float) and SHORTEST <= seconds <= LONGEST


def checked(values: Any, what: str, names: frozenset[str]) -> Any:
    """`values`, if it is a dictionary with no keys other than `names`."""
    if not isinstance(values, dict) or not names.issuperset(values):
        raise ValueError(f"{what} must have {sorted(names)}. Received: {values!r}")
    return values


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The candidates of one pass, timed against each other in one run.

    Attributes:
        outcomes: the outcome of each candidate, by its name.
        measured: time of the measurement, in UTC, as ISO 8601.
        roofline: seconds that no algorithm can beat on this device: the larger of the
            problem's least bytes over the bandwidth of a copy and its useful FLOPs
            over the rate of a matrix product, both measured in the same run. In JSON
            it is `least`.
        overruled: why native serves despite the timings, or `None`.
    """

    outcomes: Mapping[str, Outcome]
    measured: str
    roofline: float | None = None
    overruled: str | None = None

    @property
    def seconds(self) -> dict[str, float]:
        """The median time of each candidate that was timed."""
        return {
            name: outcome.seconds
            for name, outcome in self.outcomes.items()
            if outcome.seconds is not None
        }

    @property
    def is_outdated(self) -> bool:
        """Whether a candidate was refused by the earlier error bound, which refused
        correctly rounded results (issue 19)."""
        return any(
            each.failure == "wrong numbers" and each.excess is None
            for each in self.outcomes.values()
        )

    def __post_init__(self):
        object.__setattr__(self, "roofline", to_four_digits(self.roofline))
        if self.overruled:
            object.__setattr__(self, "overruled", self.overruled[:MAX_LETTERS])

    def winner(
        self, margin: float, asking: Problem, most_error: float = math.inf
    ) -> str:
        """The candidate to run: the fastest that can compute the problem, is precise
        enough and beats native by `margin`. A native with a sure failure serves only
        if nothing else can.

        Args:
            margin: required speedup over native, also by the 95 % bound where there is
                one.
            asking: the problem to be computed.
            most_error: largest error allowed, or twice native's if that is larger.
        """
        stock = self.outcomes.get("native", Outcome())
        native = self.seconds.get("native")
        if native is not None and not can_serve("native", asking):
            native = None
        if self.overruled or (native is None and stock.failure not in SURE_FAILURES):
            return "native"
        most_error = max(most_error, 2 * (stock.error or 0.0))
        for seconds, name in sorted((s, name) for name, s in self.seconds.items()):
            outcome = self.outcomes[name]
            faster = native is None or (
                margin * seconds <= native
                and (outcome.gain is None or outcome.gain >= margin)
            )
            error = math.inf if outcome.error is None else outcome.error
            precise = error <= most_error
            if (name == "native" or (faster and precise)) and can_serve(name, asking):
                return name
        return "native"

    @property
    def rank(self) -> tuple:
        """Sort key of comparisons: of two, the greater is kept."""
        overruled = self.overruled is not None
        return len(self.outcomes), self.measured, overruled, self.digest

    @functools.cached_property
    def digest(self) -> str:
        """A short hash of the measurements."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict:
        """The comparison as JSON types; the inverse of `from_dict`."""
        outcomes = {name: each.to_dict() for name, each in self.outcomes.items()}
        values: dict[str, Any] = {"measured": self.measured, "outcomes": outcomes}
        if self.roofline is not None:
            values["least"] = self.roofline
        return values | ({"overruled": self.overruled} if self.overruled else {})

    @classmethod
    def from_dict(cls, values: Mapping) -> Comparison:
        """The comparison written by `to_dict`.

        Raises:
            ValueError: if `values` is not a comparison.
        """
        checked(values, "A comparison", COMPARISON_FIELDS)
        overruled, roofline = values.get("overruled"), values.get("least")
        if (
            not is_moment(values.get("measured"))
            or not isinstance(values.get("outcomes"), dict)
            or len(values["outcomes"]) > MAX_CANDIDATES
            or not all(
                len(name) <= MAX_LETTERS_OF_A_NAME for name in values["outcomes"]
            )
            or not isinstance(overruled, str | None)
            or not (roofline is None or is_duration(roofline))
        ):
            raise ValueError(
                f"A comparison must have outcomes, {MAX_CANDIDATES} at most, and the "
                f"time when it was measured, in UTC. Received: {values!r}"
            )
        outcomes = {
            n: Outcome.from_dict(each) for n, each in values["outcomes"].items()
        }
        return cls(outcomes, values["measured"], roofline, overruled)


COMPARISON_FIELDS = frozenset(("outcomes", "measured", "least", "overruled"))


@dataclasses.dataclass(frozen=True)
class Decision:
    """The measurements of a problem.

    Attributes:
        problem: the problem.
        passes: the comparison of each pass that was measured.
    """

    problem: Problem
    passes: Mapping[str, Comparison]

    def plan(
        self,
        margin: float,
        problem: Problem | None = None,
        precision: str = STANDARD,
    ) -> Plan:
        """The winner of each pass, or native where nothing was measured.

        Args:
            margin: how many times faster than native a candidate must be to replace
                it.
            problem: the problem to be computed, if it is not the one measured.
            precision: one of `PRECISIONS`.
        """
        asking = problem or self.problem
        plan = {}
        for name, each in self.passes.items():
            strict = precision == STRICT
            allowed = allowed_error(self.problem, name) if strict else math.inf
            plan[name] = each.winner(margin, asking, allowed)
        return Plan(**plan)

    def gain(self, plan: Plan) -> float | None:
        """Speedup over native of the three passes of `plan` together, or `None` if one
        was not timed."""
        try:
            seconds = {name: self.passes[name].seconds for name in PASSES}
            native = sum(seconds[name]["native"] for name in PASSES)
            return native / sum(seconds[name][getattr(plan, name)] for name in PASSES)
        except KeyError:
            return None

    def __or__(self, other: Decision) -> Decision:
        """Both merged: for each pass the comparison with more candidates, or else the
        later one. Timings of two runs are never mixed in one pass."""
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
        """Checks that every timed candidate fits the problem.

        Raises:
            ValueError: if one names no algorithm, does not fit, or needs more than
                `sane_bytes`.
        """
        allowed = sane_bytes(self.problem)
        for comparison in self.passes.values():
            for name in comparison.seconds:
                algorithm = algorithms.parse(name)
                algorithm.check(self.problem)
                needed = algorithm.work(self.problem).bytes
                if needed > allowed:
                    raise ValueError(
                        f"{name!r} would need {needed / 2**30:.1f} GiB for "
                        f"{self.problem}, more than {allowed / 2**30:.1f} GiB"
                    )

    def check_dates(self) -> None:
        """Checks that no comparison is dated in the future, where it would outrank
        later measurements.

        Raises:
            ValueError: if one is.
        """
        latest = datetime.datetime.now(datetime.timezone.utc) + CLOCKS_DIFFER
        for comparison in self.passes.values():
            if datetime.datetime.fromisoformat(comparison.measured) > latest:
                raise ValueError(
                    "A comparison must have been measured by now. "
                    f"Received: measured={comparison.measured!r}"
                )

    @property
    def digest_of_timings(self) -> str:
        """A short hash of the timings, whether or not a whole model has overruled
        them."""
        timings = {
            name: {n: outcome.to_dict() for n, outcome in each.outcomes.items()}
            for name, each in sorted(self.passes.items())
        }
        text = json.dumps(timings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict:
        """The decision as JSON types; the inverse of `from_dict`."""
        passes = {name: each.to_dict() for name, each in self.passes.items()}
        return {"problem": self.problem.to_dict(), "passes": passes}

    @classmethod
    def from_dict(cls, values: Mapping) -> Decision:
        """The decision written by `to_dict`.

        Raises:
            ValueError: if `values` is not a decision, or a timed candidate does not
                fit the problem.
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


def now() -> str:
    """The time, in UTC, as ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
