"""A decision: what was measured for one problem in one environment."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from keras_diagwise import algorithms
from keras_diagwise.planning.environment import Environment
from keras_diagwise.planning.plan import Plan
from keras_diagwise.problem import PASSES, Problem

FORMAT = "keras-diagwise decisions"
FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Decision:
    """The timings of a problem's candidates.

    Attributes:
        problem: what was measured.
        seconds: for each pass, the median time of each candidate, by its name.
    """

    problem: Problem
    seconds: Mapping[str, Mapping[str, float]]

    def plan(self, margin: float, problem: Problem | None = None) -> Plan:
        """The winner of each pass.

        Args:
            margin: how many times faster than `native` a candidate must be to be
                chosen in its place.
            problem: the problem that asks, if it is not the one measured.
        """
        asking = problem or self.problem
        return Plan(**{name: self._winner(name, margin, asking) for name in PASSES})

    def _winner(self, pass_name: str, margin: float, asking: Problem) -> str:
        seconds = {
            name: taken
            for name, taken in self.seconds[pass_name].items()
            if can_compute(name, asking)
        }
        if not seconds:
            return "native"
        fastest = min(seconds, key=lambda name: (seconds[name], name))
        native = seconds.get("native", float("inf"))
        return fastest if native >= margin * seconds[fastest] else "native"

    def gain(self, plan: Plan) -> float | None:
        """How many times faster than native the three passes of `plan` were
        together, or `None` where one was not measured."""
        try:
            native = sum(self.seconds[name]["native"] for name in PASSES)
            return native / sum(self.seconds[n][getattr(plan, n)] for n in PASSES)
        except KeyError:
            return None

    def to_dict(self) -> dict:
        """The decision in JSON's types; `from_dict` is the way back."""
        seconds = {
            name: {k: float(f"{v:.4g}") for k, v in self.seconds[name].items()}
            for name in PASSES
        }
        return {"problem": self.problem.to_dict(), "seconds": seconds}

    @classmethod
    def from_dict(cls, values: dict) -> Decision:
        """The decision that `to_dict` wrote."""
        return cls(Problem.from_dict(values["problem"]), values["seconds"])


def can_compute(algorithm: str, problem: Problem) -> bool:
    """Whether an algorithm's parameters fit a problem and it can compute it."""
    parsed = algorithms.parse(algorithm)
    try:
        parsed.check(problem)
    except ValueError:
        return False
    return parsed.refusal(problem) is None


@dataclasses.dataclass(frozen=True)
class Document:
    """The decisions of one environment, as one JSON document."""

    environment: Environment
    decisions: tuple[Decision, ...]

    @classmethod
    def read(cls, path: Path) -> Document:
        """The document in the file at `path`."""
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("format") != FORMAT or values.get("version") != FORMAT_VERSION:
            raise ValueError(
                f"{path} must be a document of {FORMAT!r}, version {FORMAT_VERSION}. "
                f"Received: format={values.get('format')!r}, "
                f"version={values.get('version')!r}"
            )
        return cls(
            Environment.from_dict(values["environment"]),
            tuple(Decision.from_dict(each) for each in values["decisions"]),
        )

    def write(self, path: Path) -> None:
        """Writes the document, a decision a line."""
        head = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "environment": self.environment.to_dict(),
        }
        lines = ",\n".join(json.dumps(each.to_dict()) for each in self.decisions)
        text = json.dumps(head, indent=1)[:-2] + f',\n "decisions": [\n{lines}\n]}}\n'
        path.write_text(text, encoding="utf-8")
