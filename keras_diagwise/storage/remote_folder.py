"""A folder behind a URL, by fsspec."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from keras_diagwise.storage.locations import shown
from keras_diagwise.storage.plain_files import MAX_BYTES, check_size

TIMEOUT = 10.0
"""Timeout of a remote request, in seconds."""
PAUSE = 60.0
"""Seconds without further requests after one failed."""

OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci", "tos"}
"""Protocols whose paths begin with a bucket. A bucket has an owner, so none is created
implicitly."""


class AwayError(OSError):
    """A remote folder can't be reached, or is not tried for now."""


class WriteRefusedError(AwayError):
    """A remote folder can't be written, for the reason in its text. It may be read."""


class RemoteFolder:
    """A folder behind fsspec: a file is an object, written whole.

    A failure or timeout raises `AwayError` with only the type of the error, since its
    text may hold the URL and so a password. The folder then gets no requests for
    `PAUSE` seconds, so that training does not wait for it again and again.
    """

    def __init__(self, location: str):
        self._location = location
        self._opened, self._root = file_system(location)
        self._opened_by = os.getpid()
        self._away_until = 0.0

    @property
    def _system(self) -> Any:
        """fsspec's file system. A process forked from the one that opened it needs
        another."""
        if self._opened_by != os.getpid():
            self._opened, self._root = file_system(self._location)
            self._opened_by = os.getpid()
        return self._opened

    @property
    def _has_buckets(self) -> bool:
        system, names = self._system, set()
        while system is not None:
            protocol = system.protocol
            names |= {protocol} if isinstance(protocol, str) else set(protocol)
            system = getattr(system, "fs", None)  # that of a cache, or of a folder
        return bool(names & OBJECT_STORES)

    def names(self, path: str) -> list[str]:
        def ask() -> list[str]:
            self._system.invalidate_cache()
            return self._system.ls(self._at(path), detail=False)

        found = self._found(ask, missing=[])
        return [each.rstrip("/").rpartition("/")[2] for each in found]

    def content(self, path: str) -> bytes | None:
        content = self._found(lambda: self._first_bytes(path))
        if content is not None:
            check_size(len(content))
        return content

    def _first_bytes(self, path: str) -> bytes:
        """In one request, and no more than it takes to refuse a large file."""
        try:
            return self._system.cat_file(self._at(path), start=0, end=MAX_BYTES + 1)
        except FileNotFoundError:
            raise
        except Exception:  # S3 refuses a range of an empty file
            if self._system.info(self._at(path))["size"] == 0:
                return b""
            raise

    def version(self, path: str) -> object:
        return None

    def write(self, path: str, content: bytes, version: object) -> bool:
        self._answer(lambda: self._put(path, content))
        return True

    def create(self, path: str, content: bytes) -> bool:
        return self._answer(lambda: self._created(path, content))

    def remove(self, path: str) -> None:
        self._found(lambda: self._system.rm_file(self._at(path)))

    def remove_empty(self, path: str) -> None:
        def ask() -> None:
            with contextlib.suppress(Exception):  # most file systems have no folders
                self._system.rmdir(self._at(path))

        self._answer(ask)

    def age(self, path: str) -> float:
        def ask() -> float:
            try:
                return time.time() - self._system.modified(self._at(path)).timestamp()
            except NotImplementedError:
                return 0.0

        return self._found(ask, missing=0.0)

    @property
    def is_away(self) -> bool:
        """Whether it gets no requests for now."""
        return time.monotonic() < self._away_until

    def _put(self, path: str, content: bytes, **mode: str) -> None:
        """Writes a file, and creates the folder above it where one is needed, but no
        bucket.

        Raises:
            WriteRefusedError: if writing is not permitted, or there is no such bucket;
                reading still may be possible.
        """
        try:
            self._written(path, content, **mode)
        except PermissionError:
            raise WriteRefusedError("writing is not permitted") from None
        except FileNotFoundError:
            raise WriteRefusedError("there is no such folder or bucket") from None

    def _written(self, path: str, content: bytes, **mode: str) -> None:
        try:
            self._system.pipe_file(self._at(path), content, **mode)
        except FileNotFoundError:
            bucket = self._root.partition("/")[0]
            if self._has_buckets and not self._system.exists(bucket):
                raise
            self._system.makedirs(self._at(path).rpartition("/")[0], exist_ok=True)
            self._system.pipe_file(self._at(path), content, **mode)

    def _created(self, path: str, content: bytes) -> bool:
        try:
            self._put(path, content, mode="create")
        except FileExistsError:
            return False
        except TypeError:  # a file system without this mode: nearly as good
            if self._system.exists(self._at(path)):
                return False
            self._put(path, content)
        return True

    def _found(self, ask: Callable[[], Any], missing: Any = None) -> Any:
        """The answer to a request, or `missing` if there is no such file."""

        def asked() -> Any:
            try:
                return ask()
            except FileNotFoundError:
                return missing

        return self._answer(asked)

    def _answer(self, ask: Callable[[], Any]) -> Any:
        """The answer to a request."""
        if self.is_away:
            raise AwayError("it could not be reached a moment ago")
        try:
            return within(TIMEOUT, ask)
        except WriteRefusedError:
            raise
        except Exception as error:
            self._away_until = time.monotonic() + PAUSE
            raise AwayError(type(error).__name__) from None

    def _at(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}".rstrip("/")


def within(seconds: float, ask: Callable[[], Any]) -> Any:
    """Returns or raises what `ask` does, with a timeout, which does not end it.

    Raises:
        TimeoutError: if it takes longer.
    """
    answers: queue.SimpleQueue = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((ask(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True, name="remote folder").start()
    try:
        found, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return found


def file_system(location: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it."""
    try:
        import fsspec
    except ImportError:
        raise ImportError(
            "A store at a URL needs fsspec. Install it with: "
            f"pip install 'keras-diagwise[remote]'. Received: location="
            f"{shown(location)!r}"
        ) from None
    try:
        return fsspec.core.url_to_fs(location)
    except Exception as error:
        reason = str(error) if isinstance(error, ImportError) else type(error).__name__
        raise ValueError(
            "`location` must be a folder, or a URL that fsspec can reach "
            f"({reason}). Received: location={shown(location)!r}"
        ) from None
