"""The store: where this user's decisions live, one file per decision."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

from keras_diagwise.decision import Decision
from keras_diagwise.environment import Environment
from keras_diagwise.problem import Problem
from keras_diagwise.similarity import nearest_first
from keras_diagwise.storage import locations
from keras_diagwise.storage.document import Document
from keras_diagwise.storage.files import (
    BUCKET_NAME,
    CHECK_NAME,
    DECISION_NAME,
    DEVICE_LEASES,
    DIGEST,
    ENVIRONMENT_NAME,
    LEASE_NAME,
    OUR_FIRST_BYTES,
    OtherVersionError,
    check_from_bytes,
    check_to_bytes,
    checks_path,
    decision_from_bytes,
    decision_path,
    decision_to_bytes,
    environment_from_bytes,
    environment_path,
    environment_to_bytes,
    leases_path,
    sizes_and_key,
)
from keras_diagwise.storage.folders import (
    Folder,
    MemoryFolder,
    folder_at,
    is_reachable,
)
from keras_diagwise.storage.leases import Leases
from keras_diagwise.storage.plain_files import TEMPORARY_NAME
from keras_diagwise.storage.remote_folder import AwayError, RemoteFolder
from keras_diagwise.storage.unsent import send
from keras_diagwise.storage.warnings import Unusable, Warnings, reason

AN_HOUR = 3600.0
MAX_ATTEMPTS = 100
"""Attempts to merge a decision while other processes write it."""

TRIAL = OUR_FIRST_BYTES.ljust(2**13)
"""Content of a trial file. On a full disk an empty file can still be written."""

Read = TypeVar("Read")


class Store:
    """Decisions in a folder, one file each, shared by any number of processes.

    An unusable file is skipped with one warning, and left where it is, until a new
    decision replaces it; one that another version of the package wrote is never
    replaced. If the folder can't be written, decisions last as long as this object,
    with one warning.

    If a URL can't be reached, the user's cache folder is the fallback, with one
    warning. Decisions put meanwhile are kept there too, and sent, possibly by another
    process, once the URL can be reached again.

    Args:
        location: a folder, or a URL that fsspec can reach. `None` for the variable
            `KERAS_DIAGWISE_STORE`, or else the user's cache folder.

    Raises:
        ImportError: if `location` is a URL and fsspec is missing.
        ValueError: if `location` is neither a path nor a URL.
    """

    def __init__(self, location: str | Path | None = None):
        try:
            self.location = locations.standardize_location(location)
            self._folder = folder_at(self.location)
        except (ImportError, ValueError) as error:
            if location is not None:
                raise
            text = f"{error}, from the variable {locations.VARIABLE}"
            raise type(error)(text) from None
        self._spares: tuple[Folder, ...] = (MemoryFolder(),)
        self._local: Store | None = None
        if isinstance(self._folder, RemoteFolder):
            self._local = Store(locations.default_location())
            unsent = folder_at(locations.unsent_location(self.location))
            self._spares = (unsent, *self._spares)
        self._may_have_unsent = self._local is not None
        self._environments: dict[str, Environment] = {}
        self._warnings = Warnings(self.location)
        self._seen: dict[Environment, object] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"Store({locations.shown(self.location)!r})"

    def get(self, environment: Environment, problem: Problem) -> Decision | None:
        """The decision for exactly this problem in exactly this environment."""
        self._send()
        return self._decision(decision_path(environment.digest, problem))

    def nearest(self, environment: Environment, problem: Problem) -> Decision | None:
        """The decision for the nearest other problem of the same bucket."""
        folder, _, own = decision_path(environment.digest, problem).rpartition("/")
        names = (n for n in self._names(folder, DECISION_NAME) if n != own)
        for _, name in nearest_first(problem, map(sizes_and_key, names)):
            decision = self._decision(f"{folder}/{name}")
            if decision:
                return decision
        return None

    def environments(self) -> list[Environment]:
        """The environments in which anything was measured. Each file is read once: the
        name of its folder is the digest of its content."""
        digests = self._names("", DIGEST)
        for digest in digests:
            environment = self._environments.get(digest) or self._environment(digest)
            if environment:
                self._environments[digest] = environment
        return [self._environments[n] for n in digests if n in self._environments]

    def put(self, environment: Environment, decision: Decision) -> bool:
        """Stores a decision, merged with what is known of its problem.

        Returns:
            Whether the store changed.
        """
        self._send()
        with self._lock:
            self._keep_environment(environment)
            path = decision_path(environment.digest, decision.problem)
            for _ in range(MAX_ATTEMPTS):
                version = self._folder.version(path)
                others: list[Folder] = []
                known = self._decision(path, others)
                merged = known | decision if known else decision
                if merged == known:
                    return False
                content = decision_to_bytes(environment.digest, merged)
                if self._replace(path, content, version, others):
                    return True
            return self._written_to_spare(path, content, others)

    def _keep_environment(self, environment: Environment) -> None:
        """Writes the environment's file if it is missing. A file that was found correct
        and is unchanged is not read again."""
        path = environment_path(environment.digest)
        version = self._folder.version(path)
        if version is not None and version == self._seen.get(environment):
            return
        others: list[Folder] = []
        if self._environment(environment.digest, others) != environment:
            self._replace(path, environment_to_bytes(environment), version, others)
        self._seen[environment] = self._folder.version(path)

    def merge(self, document: Document) -> int:
        """Stores all decisions of a document, merged with what is known.

        Returns:
            Number of decisions that were new or changed the store.
        """
        return sum(self.put(*each) for each in document)

    def leases(self, environment: Environment) -> Leases:
        """The leases on measurements in an environment, seen by all workers that share
        the store."""
        path = leases_path(environment.digest)
        return Leases(self._folder, path, self._warnings.not_written)

    def device_leases(self) -> Leases:
        """The leases on devices, whatever is measured on them."""
        return Leases(self._folder, DEVICE_LEASES, self._warnings.not_written)

    def check(self, environment: Environment, name: str) -> dict[str, Any] | None:
        """The findings of a whole model's check, or `None` if there are none stored.

        Args:
            environment: the environment of the check.
            name: a digest of what was checked.
        """
        path = f"{checks_path(environment.digest)}/{name}.json"
        return next(self._read(path, check_from_bytes), None)

    def keep_check(self, environment: Environment, name: str, found: dict) -> None:
        """Stores the findings of a whole model's check; arguments as in `check`."""
        path = f"{checks_path(environment.digest)}/{name}.json"
        version = self._folder.version(path)
        others: list[Folder] = []
        next(self._read(path, check_from_bytes, others), None)
        self._replace(path, check_to_bytes(found), version, others)

    def document(self) -> Document:
        """All decisions that can be read."""
        return Document.merged(
            (environment, decision)
            for environment in self.environments()
            for folder in self._buckets(environment.digest)
            for name in self._names(folder, DECISION_NAME)
            for decision in [self._decision(f"{folder}/{name}")]
            if decision
        )

    def count(self) -> int:
        """The number of decisions, also of those that can't be read."""
        return sum(
            len(self._names(folder, DECISION_NAME))
            for digest in self._names("", DIGEST)
            for folder in self._buckets(digest)
        )

    def inspected(self) -> tuple[Document, dict[str, str]]:
        """All decisions that can be read, and why other files can't be used, by path.
        Gives no warnings."""
        other = Store(self.location)
        other._warnings = unusable = Unusable(self.location)
        return other.document(), unusable.found

    def why_not_writable(self, environment: Environment) -> str | None:
        """Why no decisions of an environment can be written to the folder, or `None` if
        a trial file could be, which is removed; the folder stays."""
        return why_not_writable(self._folder, environment.digest)

    def why_not_kept(self, environment: Environment) -> str | None:
        """Why decisions of an environment will be lost with this process, or `None` if
        they will not."""
        *spares, _ = self._spares
        folders = (self._folder, *spares)
        reasons = [why_not_writable(each, environment.digest) for each in folders]
        return None if None in reasons else reasons[0]

    def sweep(self, environment: Environment, seconds: float = AN_HOUR) -> int:
        """Removes what killed processes left behind in an environment or on a device:
        temporary files and leases older than `seconds`, by the clock of the files' own
        file system.

        Returns:
            Number of files removed.
        """
        digest = environment.digest
        leases = (leases_path(digest), DEVICE_LEASES)
        folders = ("", digest, *leases, checks_path(digest))
        removed = 0
        for folder in (*folders, *self._buckets(digest)):
            for name in self._listed(self._folder, folder):
                path = f"{folder}/{name}".lstrip("/")
                is_lease = LEASE_NAME.fullmatch(name) and folder in leases
                if TEMPORARY_NAME.fullmatch(name) or is_lease:
                    removed += self._swept(path, seconds)
        return removed

    def _swept(self, path: str, seconds: float) -> bool:
        try:
            if self._folder.age(path) > seconds:
                return self._removed(self._folder, path)
        except OSError:  # another process was quicker, or it may not be written
            pass
        return False

    def clear(self) -> int:
        """Removes all decisions, and no files but the store's own.

        Returns:
            Number of decisions removed.

        Raises:
            OSError: if a URL can't be reached. Nothing is removed.
        """
        removed: set[str] = set()
        with self._lock:
            if self._local is not None:
                self._folder.names("")
            for digest in self._names("", DIGEST):
                for folder in self._buckets(digest):
                    removed.update(self._clear(folder, DECISION_NAME))
                self._clear(leases_path(digest), LEASE_NAME)
                self._clear(checks_path(digest), CHECK_NAME)
                self._clear(digest, ENVIRONMENT_NAME)
            self._clear(DEVICE_LEASES, LEASE_NAME)
        return len(removed)

    def _buckets(self, digest: str) -> list[str]:
        return [f"{digest}/{name}" for name in self._names(digest, BUCKET_NAME)]

    def _clear(self, path: str, pattern: re.Pattern) -> list[str]:
        """Removes the store's own files from a folder, and the folder if that empties
        it.

        Returns:
            The paths of those whose names match `pattern`.
        """
        removed = []
        for folder in (self._folder, *self._spares):
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
            self._warnings.not_read(path, error)
        return False

    def _replace(
        self, path: str, content: bytes, version: object, others: Collection[Folder]
    ) -> bool:
        """Writes a file, with a spare folder or memory as fallback; to memory if it
        would replace one that another version of the package wrote.

        Args:
            path: its path.
            content: its content.
            version: the version of the file that it replaces.
            others: the folders where another version of the package wrote the file.

        Returns:
            `False` if another process was quicker.
        """
        if self._folder in others:
            return self._spares[-1].write(path, content, None)
        try:
            try:
                return self._folder.write(path, content, version)
            except FileNotFoundError:  # another process has just cleared the store
                return self._folder.write(path, content, None)
        except OSError as error:
            self._warnings.not_written(error)
            return self._written_to_spare(path, content, others)

    def _written_to_spare(
        self, path: str, content: bytes, others: Collection[Folder]
    ) -> bool:
        """Writes a file to the first fallback that works: a local folder, or memory."""
        self._may_have_unsent = self._local is not None
        *folders, memory = self._spares
        for folder in folders:
            if folder in others:
                continue
            try:
                return folder.write(path, content, folder.version(path))
            except OSError as error:
                self._warnings.lasts_in_memory(error)
        return memory.write(path, content, None)

    def _send(self) -> None:
        """Sends what was kept while the URL could not be reached."""
        with self._lock:
            if not self._may_have_unsent or not is_reachable(self._folder):
                return
            self._may_have_unsent = False
            for folder in self._spares:
                try:
                    send(folder, self._folder, self._warnings.ignored)
                except OSError as error:
                    self._warnings.not_written(error)
                    # Without write permission, no retry at every lookup.
                    self._may_have_unsent = not is_reachable(self._folder)

    def _names(self, path: str, pattern: re.Pattern) -> list[str]:
        """The names in a folder that match `pattern`."""
        names = [n for each in self._spares for n in self._listed(each, path)]
        names += self._listed(self._folder, path)
        if self._local and not is_reachable(self._folder):
            names += self._local._names(path, pattern)
        return sorted({name for name in names if pattern.fullmatch(name)})

    def _listed(self, folder: Folder, path: str) -> list[str]:
        try:
            return folder.names(path)
        except OSError as error:
            self._warnings.not_read(path, error)
            return []

    def _decision(
        self, path: str, others: list[Folder] | None = None
    ) -> Decision | None:
        found = None
        for each in self._read(path, decision_from_bytes, others):
            found = found | each if found else each
        return found

    def _environment(
        self, digest: str, others: list[Folder] | None = None
    ) -> Environment | None:
        path = environment_path(digest)
        return next(self._read(path, environment_from_bytes, others), None)

    def _read(
        self,
        path: str,
        parse: Callable[[bytes, str], Read],
        others: list[Folder] | None = None,
    ) -> Iterator[Read]:
        """The valid contents of a file: in the folder, in its fallbacks, and, if the
        folder can't be reached, in the user's own store.

        Args:
            path: its path.
            parse: the content of bytes at a path.
            others: extended by the folders where another version of the package wrote
                the file.
        """
        for folder in (self._folder, *self._spares):
            try:
                content = folder.content(path)
                if content is not None:
                    yield parse(content, path)
            except Exception as error:  # whatever is invalid is a miss
                if isinstance(error, OtherVersionError) and others is not None:
                    others.append(folder)
                self._warnings.not_read(path, error)
                if self._local and isinstance(error, AwayError):
                    yield from self._local._read(path, parse)


def why_not_writable(folder: Folder, digest: str) -> str | None:
    """Why nothing can be written to a folder and to the environment's in it, which
    another user may have created; `None` if a file of a decision's size could be."""
    name = f".{secrets.token_hex(8)}.tmp"
    try:
        for path in [name, *(f"{n}/{name}" for n in folder.names("") if n == digest)]:
            folder.write(path, TRIAL, None)
            folder.remove(path)
    except OSError as error:
        return reason(error)
    return None
