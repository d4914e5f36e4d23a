"""A document: decisions of any number of environments, as one JSON text."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_diagwise.decision import Decision
from keras_diagwise.environment import Environment
from keras_diagwise.problem import Problem
from keras_diagwise.similarity import bucket, logarithms, nearest_first

FORMAT = "keras-diagwise decisions"
FORMAT_VERSION = 1
MAX_BYTES = 2**23
"""Largest document accepted: a decision takes about a kilobyte."""
MAX_DECISIONS = 1500
"""Most per document: each becomes a file of a store, in one to two milliseconds."""

Entries = Mapping[Environment, Mapping[Problem, Decision]]


@dataclasses.dataclass(frozen=True)
class Document:
    """Decisions by environment and problem.

    `one | other` is their merge: idempotent, commutative and associative.
    """

    entries: Entries = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, environment: Environment, decisions: Iterable[Decision]) -> Document:
        """The document of one environment."""
        return cls.merged((environment, each) for each in decisions)

    @classmethod
    def merged(cls, pairs: Iterable[tuple[Environment, Decision]]) -> Document:
        """The document of decisions with their environments, those for one problem
        merged."""
        entries: dict[Environment, dict[Problem, Decision]] = {}
        for environment, decision in pairs:
            decisions = entries.setdefault(environment, {})
            known = decisions.get(decision.problem)
            decisions[decision.problem] = known | decision if known else decision
        return cls(entries)

    def __iter__(self) -> Iterator[tuple[Environment, Decision]]:
        for environment, decisions in self.entries.items():
            for decision in decisions.values():
                yield environment, decision

    def __len__(self) -> int:
        return sum(map(len, self.entries.values()))

    def get(self, environment: Environment, problem: Problem) -> Decision | None:
        """The decision for exactly this problem in exactly this environment."""
        return self.entries.get(environment, {}).get(problem)

    def nearest(self, environment: Environment, problem: Problem) -> Decision | None:
        """The decision for the nearest other problem of the same bucket."""
        of_bucket = {
            known.digest: decision
            for known, decision in self.entries.get(environment, {}).items()
            if known != problem and bucket(known) == bucket(problem)
        }
        order = nearest_first(
            problem,
            ((logarithms(each.problem), key) for key, each in of_bucket.items()),
        )
        return of_bucket[order[0]] if order else None

    def environments(self) -> list[Environment]:
        """The environments, in the order of their digests."""
        return sorted(self.entries, key=lambda each: each.digest)

    def __or__(self, other: Document) -> Document:
        return Document.merged(itertools.chain(self, other))

    @classmethod
    def read(cls, path: str | Path) -> Document:
        """The document in a file.

        Raises:
            ValueError: if the file is too large or not a document, or a decision in it
                does not fit its problem.
        """
        path = Path(path)
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(
                f"{path} must not have more than {MAX_BYTES} bytes. Received: {size}"
            )
        try:
            return cls.from_text(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} must be a document of {FORMAT!r}. {error}"
            ) from error

    @classmethod
    def from_text(cls, text: str) -> Document:
        """The document written by `to_text`.

        Raises:
            ValueError: if it is not one.
        """
        values = json.loads(text, object_pairs_hook=unique)
        if not isinstance(values, dict):
            raise ValueError("It must be one JSON object.")
        found = values.get("format"), values.get("version")
        is_later = type(found[1]) is int and found[1] > FORMAT_VERSION
        if found[0] == FORMAT and is_later:
            raise ValueError(
                "It was exported by a later version of keras-diagwise. To import it: "
                "pip install --upgrade keras-diagwise."
            )
        if found != (FORMAT, FORMAT_VERSION):
            raise ValueError(
                f"Its format must be {FORMAT!r}, version {FORMAT_VERSION}. Received: "
                f"format={found[0]!r}, version={found[1]!r}"
            )
        pairs = pairs_in(values.get("environments"))
        document = cls.merged(itertools.islice(pairs, MAX_DECISIONS))
        if next(pairs, None):
            raise ValueError(f"It must not have more than {MAX_DECISIONS} decisions.")
        return document

    def to_text(self) -> str:
        """The document as JSON, one decision per line, ordered by digest."""
        parts = []
        for environment in self.environments():
            decisions = self.entries[environment].values()
            lines = ",\n".join(
                json.dumps(each.to_dict())
                for each in sorted(decisions, key=lambda each: each.problem.digest)
            )
            head = json.dumps(environment.to_dict(), indent=1)
            parts.append(f'{{"environment": {head},\n"decisions": [\n{lines}\n]}}')
        head = f'{{"format": "{FORMAT}", "version": {FORMAT_VERSION}, "environments": ['
        return head + ",\n".join(parts) + "]}\n"

    def check_dates(self) -> None:
        """Checks that no comparison is dated in the future.

        Raises:
            ValueError: if one is.
        """
        for _, decision in self:
            decision.check_dates()

    def write(self, path: str | Path) -> None:
        """Writes the document to a file.

        Raises:
            ValueError: if it is too large to be read.
        """
        Path(path).write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The content of its file.

        Raises:
            ValueError: if it is too large to be read.
        """
        content = self.to_text().encode()
        if len(self) > MAX_DECISIONS or len(content) > MAX_BYTES:
            raise ValueError(
                f"A document must not have more than {MAX_DECISIONS} decisions, nor "
                f"more than {MAX_BYTES} bytes. Received: {len(self)} decisions, "
                f"{len(content)} bytes. Share the folder that holds them instead, by "
                "`keras_diagwise.decisions.location`."
            )
        return content


def pairs_in(environments: Any) -> Iterator[tuple[Environment, Decision]]:
    """The decisions in a text's list of environments.

    Raises:
        ValueError: if it is not such a list.
    """
    if not isinstance(environments, list):
        raise ValueError("It must have a list of `environments`.")
    for each in environments:
        if not isinstance(each, dict) or not isinstance(each.get("decisions"), list):
            raise ValueError("An environment must have a list of `decisions`.")
        environment = Environment.from_dict(each.get("environment", {}))
        for values in each["decisions"]:
            yield environment, Decision.from_dict(values)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without duplicate names.

    Raises:
        ValueError: if a name is in it twice.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"No object may have a name twice. Received: {names}")
    return values
