"""A decision: what was measured for one problem in one environment."""

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
"""Why a candidate has no timing: it can't compute the problem; it can't win by
arithmetic, memory or the time to compile it; its first run was far behind; or, the
mishaps, what went wrong."""


SURE_FAILURES = ("refused", "wrong numbers", "not finite", "exception")
"""Those that do not come from what else the device did just then."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a candidate. Numbers are kept to four digits.

    Attributes:
        seconds: its median time, or `None` if it was not timed.
        error: its largest error against float64, in units of the exact result's
            root mean square; `None` if it was not verified so.
        gain: how many times faster than native it is at least, by the 95 % bound
            of the paired rounds; `None` where there is no such bound.
        failure: one of `FAILURES`, or `None`.
        reason: what `failure` was, in words.
        excess: of wrong numbers, by how many times they are off that rounding explains,
            element by element.
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
        """The outcome in JSON's types, without what it does not have."""
        return {n: v for n, v in vars(self).items() if v not in (None, "")}

    @classmethod
    def from_dict(cls, values: Mapping) -> Outcome:
        """The outcome that `to_dict` wrote.

        Raises:
            ValueError: if `values` are not an outcome's.
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
"""Seconds that a pass can take."""
MAX_NUMBER = 1e18
"""Of an error or a ratio."""
CLOCKS_DIFFER = datetime.timedelta(days=1)

MAX_LETTERS = 500
"""Of a reason: more are cut off."""
MAX_CANDIDATES = 200
MAX_LETTERS_OF_A_NAME = 100
"""In a comparison: more are a mistake or malice."""


def to_four_digits(number: float | None) -> float | None:
    """What stays of a number where it is kept."""
    return None if number is None else float(f"{number:.4g}")


def is_moment(text: Any) -> bool:
    """Whether `text` is a time as ISO 8601 has it, in UTC and to the second."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return False
    return text.endswith("+00:00") and moment.isoformat(timespec="seconds") == text


def is_positive(number: Any) -> bool:
    """Whether `number` is one, not negative, and of a size that can be."""
    return type(number) in (int, float) and 0 <= number <= MAX_NUMBER


def is_duration(seconds: Any) -> bool:
    """Whether `seconds` are a time that something can have taken."""
    return type(seconds) in (int, float) and SHORTEST <= seconds <= LONGEST


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
        roofline: seconds below which no algorithm can be, by what the device can do,
            measured in the same run: the larger of the problem's least bytes over the
            bandwidth of a copy and its useful arithmetic over the rate of a matrix
            product. In JSON it is `least`.
        overruled: why native serves all the same, or `None`.
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
        """Whether a candidate was refused by a bound that refused what is rounded right
        (issue 19)."""
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
        """The candidate to run: the fastest of those that can serve, are precise
        enough, and are so much faster than native; a native that surely failed never
        serves if another can.

        Args:
            margin: how many times faster than native it must be, by the 95 % bound
                where there is one.
            asking: the problem that asks.
            most_error: how far it may be off, unless native is so too, or half as far.
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
        """By which of two comparisons the greater is kept."""
        overruled = self.overruled is not None
        return len(self.outcomes), self.measured, overruled, self.digest

    @functools.cached_property
    def digest(self) -> str:
        """A short name that only these measurements have."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict:
        """The comparison in JSON's types; `from_dict` is the way back."""
        outcomes = {name: each.to_dict() for name, each in self.outcomes.items()}
        values: dict[str, Any] = {"measured": self.measured, "outcomes": outcomes}
        if self.roofline is not None:
            values["least"] = self.roofline
        return values | ({"overruled": self.overruled} if self.overruled else {})

    @classmethod
    def from_dict(cls, values: Mapping) -> Comparison:
        """The comparison that `to_dict` wrote.

        Raises:
            ValueError: if `values` are not a comparison's.
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
    """What was measured for a problem.

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
        """The winner of each pass, native where none was measured.

        Args:
            margin: how many times faster than native a candidate must be to serve
                in its place.
            problem: the problem that asks, if it is not the one measured.
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
        """Checks that nothing was measured in the future: it would stay greater than
        what is measured from now on.

        Raises:
            ValueError: if something was.
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
        """A short name that only these measurements have, whether or not a whole model
        has overruled them."""
        timings = {
            name: {n: outcome.to_dict() for n, outcome in each.outcomes.items()}
            for name, each in sorted(self.passes.items())
        }
        text = json.dumps(timings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

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

MAX_OPERATIONS = 512
"""A candidate of more would take too long to compile."""


def sane_bytes(problem: Problem) -> int:
    """How many bytes a candidate may move: what needs more is a mistake or malice."""
    return max(2**30, 8 * problem.least_bytes)


def can_serve(algorithm: str, problem: Problem) -> bool:
    """Whether an algorithm can compute a problem, be it another than that for which
    it was measured, and takes a sane amount of memory and time to compile."""
    parsed = algorithms.parse(algorithm)
    try:
        parsed.check(problem)
    except ValueError:
        return False
    work = parsed.work(problem)
    sane = work.bytes <= sane_bytes(problem) and work.operations <= MAX_OPERATIONS
    return sane and parsed.refusal(problem) is None
