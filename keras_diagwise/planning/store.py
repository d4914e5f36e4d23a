"""The store: where this user's decisions live, one file a decision."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from keras_diagwise.planning.decision import Decision
from keras_diagwise.planning.document import Document
from keras_diagwise.planning.environment import Environment
from keras_diagwise.planning.folder import (
    TEMPORARY_NAME,
    Folder,
    MemoryFolder,
    folder_at,
    shown,
)
from keras_diagwise.planning.nearness import (
    Logarithms,
    bucket,
    logarithms,
    nearest_first,
)
from keras_diagwise.problem import Problem

VARIABLE = "KERAS_DIAGWISE_STORE"
LAYOUT = "v1"

DECISION_FORMAT = "keras-diagwise decision"
ENVIRONMENT_FORMAT = "keras-diagwise environment"
FORMAT_VERSION = 1
OUR_FIRST_BYTES = b'{\n "format": "keras-diagwise '

DIGEST = re.compile(r"[0-9a-f]{16}")
BUCKET_NAME = re.compile(r"[123]d-g\d+x\d+-k[\w-]+")
DECISION_NAME = re.compile(
    r"(\d+\.\d{3})-(\d+\.\d{3})-(\d+\.\d{3})-([0-9a-f]{16})\.json"
)
ENVIRONMENT_NAME = re.compile(r"environment\.json")

MOST_WARNINGS = 5
"""So many files that can't be used are named, one a line."""
MOST_ATTEMPTS = 100
"""How often a decision is merged anew because another process wrote it meanwhile."""

logger = logging.getLogger("keras_diagwise")

Read = TypeVar("Read")


class Store:
    """Decisions in a folder, one file each, that any number of processes share.

    What is there but can't be used is passed over with one warning, and left
    where it is. Where nothing can be written, decisions last as long as this
    object, with one warning.

    Args:
        location: a folder, or a URL that fsspec can reach. `None` is what the
            variable `KERAS_DIAGWISE_STORE` says, or else the user's cache folder.

    Raises:
        ImportError: if `location` is a URL and fsspec is missing.
        ValueError: if `location` is no path and no URL.
    """

    def __init__(self, location: str | Path | None = None):
        self.location = standardize_location(location)
        self._folder = folder_at(self.location)
        self._memory = MemoryFolder()
        self._warnings = Warnings(self.location)
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"Store({shown(self.location)!r})"

    def get(self, environment: Environment, problem: Problem) -> Decision | None:
        """The decision for this very problem in this very environment."""
        return self._decision(decision_path(environment.digest, problem))

    def nearest(self, environment: Environment, problem: Problem) -> Decision | None:
        """The decision for the nearest problem of the same bucket."""
        folder = f"{environment.digest}/{bucket(problem)}"
        # By digest first: what is as near comes in the order that documents have.
        files = (
            (sizes, f"{digest} {name}")
            for name in self._names(folder, DECISION_NAME)
            for sizes, digest in [sizes_and_digest(name)]
        )
        for key in nearest_first(problem, files):
            decision = self._decision(f"{folder}/{key.split()[1]}")
            if decision:
                return decision
        return None

    def environments(self) -> list[Environment]:
        """Where anything was measured."""
        found = map(self._environment, self._names("", DIGEST))
        return [environment for environment in found if environment]

    def put(self, environment: Environment, decision: Decision) -> bool:
        """Keeps a decision, merged with what is known of its problem.

        Returns:
            Whether that changed anything.
        """
        with self._lock:
            if self._environment(environment.digest) != environment:
                path = f"{environment.digest}/environment.json"
                content = environment_to_bytes(environment)
                self._replace(path, content, self._folder.version(path))
            path = decision_path(environment.digest, decision.problem)
            for _ in range(MOST_ATTEMPTS):
                version = self._folder.version(path)
                known = self._decision(path)
                merged = known | decision if known else decision
                if merged == known:
                    return False
                content = decision_to_bytes(environment.digest, merged)
                if self._replace(path, content, version):
                    return True
            return self._memory.write(path, content, None)

    def merge(self, document: Document) -> int:
        """Keeps all decisions of a document, merged with what is known.

        Returns:
            How many were new, or changed what was known.
        """
        return sum(self.put(*each) for each in document)

    def document(self) -> Document:
        """All decisions that can be read."""
        document = Document()
        for environment in self.environments():
            paths = (
                f"{folder}/{name}"
                for folder in self._buckets(environment.digest)
                for name in self._names(folder, DECISION_NAME)
            )
            decisions = filter(None, map(self._decision, paths))
            document |= Document.of(environment, decisions)
        return document

    def clear(self) -> int:
        """Removes all decisions, and leaves what is not the store's own.

        Returns:
            How many there were.
        """
        removed: set[str] = set()
        with self._lock:
            for digest in self._names("", DIGEST):
                for folder in self._buckets(digest):
                    removed.update(self._clear(folder, DECISION_NAME))
                self._clear(digest, ENVIRONMENT_NAME)
        return len(removed)

    def _buckets(self, digest: str) -> list[str]:
        return [f"{digest}/{name}" for name in self._names(digest, BUCKET_NAME)]

    def _clear(self, path: str, pattern: re.Pattern) -> list[str]:
        """Removes our own files from a folder, and the folder if that empties it.

        Returns:
            The paths of those whose names fit.
        """
        removed = []
        for folder in (self._folder, self._memory):
            ours = (
                f"{path}/{name}"
                for name in self._listed(folder, path)
                if pattern.fullmatch(name) or TEMPORARY_NAME.fullmatch(name)
            )
            removed += [each for each in ours if self._removed(folder, each)]
            folder.remove_empty(path)
        return [each for each in removed if not each.endswith(".tmp")]

    def _removed(self, folder: Folder, path: str) -> bool:
        try:
            content = folder.content(path) or b""
            if content[: len(OUR_FIRST_BYTES)] == OUR_FIRST_BYTES[: len(content)]:
                folder.remove(path)
                return True
        except OSError as error:
            self._warnings.passed_over(path, error)
        return False

    def _replace(self, path: str, content: bytes, version: object) -> bool:
        """Writes a file, to memory where it can't be written to the folder.

        Returns:
            `False` if another process was quicker.
        """
        try:
            try:
                return self._folder.write(path, content, version)
            except FileNotFoundError:  # another process cleared the store meanwhile
                return self._folder.write(path, content, None)
        except OSError as error:
            self._warnings.lasts_in_memory(error)
            return self._memory.write(path, content, None)

    def _names(self, path: str, pattern: re.Pattern) -> list[str]:
        """The names in a folder that fit."""
        listed = (self._listed(each, path) for each in (self._folder, self._memory))
        return sorted({n for names in listed for n in names if pattern.fullmatch(n)})

    def _listed(self, folder: Folder, path: str) -> list[str]:
        try:
            return folder.names(path)
        except OSError as error:
            self._warnings.passed_over(path, error)
            return []

    def _decision(self, path: str) -> Decision | None:
        found = None
        for each in self._read(path, decision_from_bytes):
            found = found | each if found else each
        return found

    def _environment(self, digest: str) -> Environment | None:
        path = f"{digest}/environment.json"
        return next(self._read(path, environment_from_bytes), None)

    def _read(self, path: str, parse: Callable[[bytes, str], Read]) -> Iterator[Read]:
        """What a file says, in the folder and in memory, so far as it is valid."""
        for folder in (self._folder, self._memory):
            try:
                content = folder.content(path)
                if content is not None:
                    yield parse(content, path)
            except Exception as error:  # what is invalid is a miss, whatever it is
                self._warnings.passed_over(path, error)


class Warnings:
    """Says each thing once, and not too many."""

    def __init__(self, location: str):
        self._location = shown(location)
        self._said: set[str] = set()
        self._named: set[str] = set()
        self._lock = threading.RLock()

    def lasts_in_memory(self, error: OSError) -> None:
        """Says that nothing can be written."""
        self._say(
            f"decisions can't be written to {self._location} ({reason(error)}) and "
            "last for this process only. Set keras_diagwise.decisions.location, or "
            f"the variable {VARIABLE}, to a folder that can be written.",
            "in memory",
        )

    def passed_over(self, path: str, error: Exception) -> None:
        """Says that what is at a path can't be used."""
        with self._lock:
            if path not in self._named and len(self._named) == MOST_WARNINGS:
                return self._say("further files that can't be used are not named.")
            self._named.add(path)
        where = "/".join(filter(None, (self._location, path)))
        self._say(
            f"{where} can't be used and is passed over: {reason(error)}", f"/{path}"
        )

    def _say(self, message: str, what: str = "more") -> None:
        with self._lock:
            new = what not in self._said
            self._said.add(what)
        if new:
            logger.warning("keras_diagwise: %s", message)


def standardize_location(location: str | Path | None) -> str:
    """`location`, or else the default one, as an absolute path or a URL.

    Raises:
        ValueError: if it is neither a path nor a URL.
    """
    if location is None:
        location = os.environ.get(VARIABLE)
        if not location:
            return default_location()
    if not isinstance(location, str | Path) or not fits_a_path(str(location)):
        raise ValueError(
            "`location` must be a folder's path, or a URL. "
            f"Received: location={location!r}"
        )
    text = str(location)
    if "://" in text:
        return text
    text = os.path.expanduser(text)
    return text if text.startswith("~") else os.path.abspath(text)


def fits_a_path(text: str) -> bool:
    return bool(text) and "\0" not in text


def default_location() -> str:
    """The folder of our own in the user's cache."""
    try:
        folder = platformdirs.user_cache_path("keras-diagwise", appauthor=False)
    except RuntimeError:  # platformdirs 4.14 raises where there is no home
        folder = Path("~/keras-diagwise")
    return str(folder / LAYOUT)


def decision_path(environment: str, problem: Problem) -> str:
    """The path of a decision's file, from the digest of its environment."""
    sizes = "-".join(f"{size:.3f}" for size in logarithms(problem))
    return f"{environment}/{bucket(problem)}/{sizes}-{problem.digest}.json"


def sizes_and_digest(name: str) -> tuple[Logarithms, str]:
    """What the name of a decision's file tells."""
    *sizes, digest = DECISION_NAME.fullmatch(name).groups()  # type: ignore[union-attr]
    return Logarithms(*map(float, sizes)), digest


def decision_to_bytes(environment: str, decision: Decision) -> bytes:
    """The content of a decision's file, from the digest of its environment."""
    values = {"environment": environment, **decision.to_dict()}
    return to_bytes(DECISION_FORMAT, {"checksum": checksum(values), **values})


def decision_from_bytes(content: bytes, path: str) -> Decision:
    """The decision in the file of this path.

    Raises:
        Exception: of any kind, if there is none.
    """
    values = from_bytes(DECISION_FORMAT, content)
    if values.pop("checksum", None) != checksum(values):
        raise ValueError("its checksum does not fit its content")
    environment = values.pop("environment")
    decision = Decision.from_dict(values)
    if decision_path(environment, decision.problem) != path:
        raise ValueError("it is another problem's or another environment's")
    return decision


def environment_to_bytes(environment: Environment) -> bytes:
    """The content of an environment's file."""
    return to_bytes(ENVIRONMENT_FORMAT, environment.to_dict())


def environment_from_bytes(content: bytes, path: str) -> Environment:
    """The environment in the file of this path.

    Raises:
        Exception: of any kind, if there is none.
    """
    environment = Environment.from_dict(from_bytes(ENVIRONMENT_FORMAT, content))
    if path != f"{environment.digest}/environment.json":
        raise ValueError("it is another environment's")
    return environment


def to_bytes(kind: str, values: dict) -> bytes:
    head = {"format": kind, "version": FORMAT_VERSION}
    return (json.dumps({**head, **values}, indent=1) + "\n").encode()


def from_bytes(kind: str, content: bytes) -> dict[str, Any]:
    values = json.loads(content)
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    found = values.pop("format", None), values.pop("version", None)
    if found != (kind, FORMAT_VERSION):
        raise ValueError(f"it is not of format {kind!r}, version {FORMAT_VERSION}")
    return values


def checksum(values: dict) -> str:
    """A digest that any change of the values changes."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def reason(error: Exception) -> str:
    """What was wrong, in few words."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text if len(text) < 200 else f"{text[:200]}…"
