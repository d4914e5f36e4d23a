"""A decision: the measurements of one problem in one environment."""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import force_setattr

from keras_diagwise import algorithms
from keras_diagwise.algorithms.limits import can_serve, sane_bytes
from keras_diagwise.plan import Plan
from keras_diagwise.precision import STANDARD, STRICT, allowed_error
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.records import Record, one_of, with_parts

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

VERIFIED_FAILURES = (*SURE_FAILURES, "crash")
"""Failures that a verification can find."""


MAX_NUMBER = 1e18
"""Largest plausible error or ratio."""
MAX_LETTERS = 500
"""Longest reason; longer ones are cut off."""
MAX_CANDIDATES = 200
"""Most candidates of a comparison; more is a mistake or malicious."""
CLOCKS_DIFFER = datetime.timedelta(days=1)

Seconds = Annotated[float, Meta(ge=1e-9, le=86400.0)]
"""A plausible time of a pass: a nanosecond to a day."""
Number = Annotated[float, Meta(ge=0.0, le=MAX_NUMBER)]
CandidateName = Annotated[str, Meta(max_length=100)]
ALGORITHM_NAME = re.compile(r"[a-z0-9_]+(:[a-z0-9_]+)*")
PassName = Annotated[str, one_of(*PASSES)]


class Outcome(Record, frozen=True):
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

    RULE = "An outcome must have a time of a nanosecond to a day, or a failure"

    seconds: Seconds | None = None
    error: Number | None = None
    gain: Number | None = None
    failure: Annotated[str, one_of(*FAILURES)] | None = None
    reason: str = ""
    excess: Number | None = None

    def __post_init__(self):
        for name in ("seconds", "error", "gain", "excess"):
            force_setattr(self, name, to_four_digits(getattr(self, name)))
        force_setattr(self, "reason", self.reason[:MAX_LETTERS])

    def check(self) -> None:
        if (self.seconds is None) == (self.failure is None):
            raise ValueError(f"{self.RULE}. Received: {self.to_dict()}")


def check_unknown(candidate: str) -> None:
    """Checks that a candidate's name can be that of another version's algorithm.

    Raises:
        ValueError: if it can't.
    """
    if not ALGORITHM_NAME.fullmatch(candidate):
        raise ValueError(
            "A candidate must be an algorithm, with its parameters after colons, such "
            f"as 'diagonal:32:split'. Received: {candidate!r}"
        )


def to_four_digits(number: float | None) -> float | None:
    """`number` rounded to four significant digits."""
    return None if number is None else float(f"{number:.4g}")


def is_moment(text: str) -> bool:
    """Whether `text` is an ISO 8601 time in UTC, to the second."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return False
    return text.endswith("+00:00") and moment.isoformat(timespec="seconds") == text


class Comparison(Record, frozen=True, rename={"roofline": "least"}, dict=True):
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

    RULE = "A comparison must have outcomes, and its time in UTC"

    outcomes: Annotated[
        Mapping[CandidateName, Outcome], Meta(max_length=MAX_CANDIDATES)
    ]
    measured: str
    roofline: Seconds | None = None
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
        overruled = (self.overruled or "")[:MAX_LETTERS] or None
        force_setattr(self, "roofline", to_four_digits(self.roofline))
        force_setattr(self, "overruled", overruled)

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
        """Sort key of comparisons: of two, the greater is kept. It is the one with more
        candidates of this version, or else of any. Of the same measurement, it is the
        one that was overruled, or in which a verification has found more candidates to
        fail; but a time outranks a lack of time or memory."""
        failures = [outcome.failure for outcome in self.outcomes.values()]
        known = [name for name in self.outcomes if algorithms.parse_known(name)]
        return (
            len(known),
            len(self.outcomes),
            self.measured,
            self.overruled is not None,
            sum(failure in VERIFIED_FAILURES for failure in failures),
            len(self.seconds),
            self.digest,
        )

    @functools.cached_property
    def digest(self) -> str:
        """A short hash of the measurements."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict:
        """The comparison as JSON types; the inverse of `from_dict`."""
        return {"measured": self.measured, **super().to_dict()}

    @classmethod
    def from_dict(cls, values: Any) -> Comparison:
        return super().from_dict(with_parts(values, outcomes=Outcome.from_dicts))

    def check(self) -> None:
        if not is_moment(self.measured):
            raise ValueError(f"{self.RULE}. Received: measured={self.measured!r}")


class Decision(Record, frozen=True):
    """The measurements of a problem.

    Attributes:
        problem: the problem.
        passes: the comparison of each pass that was measured.
    """

    RULE = "A decision must have a problem, and comparisons of its passes"

    problem: Problem
    passes: Mapping[PassName, Comparison]

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
        """Checks that every timed candidate fits the problem. One that this version
        does not know is kept, and never serves: another version may have measured it.

        Raises:
            ValueError: if a known one does not fit, or needs more than `sane_bytes`, or
                an unknown one can't be an algorithm's name.
        """
        allowed = sane_bytes(self.problem)
        for comparison in self.passes.values():
            for name in comparison.seconds:
                algorithm = algorithms.parse_known(name)
                if algorithm is None:
                    check_unknown(name)
                    continue
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
            name: msgspec.to_builtins(each.outcomes)
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
        parsers = {"problem": Problem.from_dict, "passes": Comparison.from_dicts}
        return super().from_dict(with_parts(values, **parsers))


def now() -> str:
    """The time, in UTC, as ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
