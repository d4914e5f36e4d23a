"""Where the store keeps its files: in a folder, in memory, or behind a URL."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from keras_diagwise.storage.locations import shown

MAX_BYTES = 2**22
"""Largest file accepted: a decision takes a few kilobytes."""

PATIENCE = 10.0
"""Timeout of a remote request, in seconds."""
PAUSE = 60.0
"""Seconds without further requests after one failed."""

OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci", "tos"}
"""Protocols of which the first name in a path is a bucket's, with an owner, and is not
created by the way."""

TEMPORARY_NAME = re.compile(r"\.[0-9a-f]{16}\.tmp")


class Folder(Protocol):
    """Files by their path below the folder, with `/` between names.

    Whatever can't be done raises an `OSError`.
    """

    def names(self, path: str) -> list[str]:
        """The names in a folder; none if there is no such folder."""

    def content(self, path: str) -> bytes | None:
        """A file's content, or `None` if nothing has this name."""

    def version(self, path: str) -> object:
        """A value that changes whenever the file does."""

    def write(self, path: str, content: bytes, version: object) -> bool:
        """Replaces a file atomically, if its version is still this one."""

    def create(self, path: str, content: bytes) -> bool:
        """Creates a file atomically if nothing has this name: of several that try, only
        one succeeds."""

    def remove(self, path: str) -> None:
        """Removes a file."""

    def remove_empty(self, path: str) -> None:
        """Removes a folder if it is empty."""

    def age(self, path: str) -> float:
        """Seconds since a file was written, by the clock of its file system; 0 if
        unknown."""


class LocalFolder:
    """A folder on a disk, created on the first write."""

    def __init__(self, root: str):
        self._root = root

    def names(self, path: str) -> list[str]:
        try:
            return os.listdir(self._at(path))
        except OSError as error:
            if is_missing(self._at(path), error):
                return []
            raise

    def content(self, path: str) -> bytes | None:
        try:
            return read_plain(self._at(path))
        except OSError as error:
            if is_missing(self._at(path), error):
                return None
            raise

    def version(self, path: str) -> object:
        try:
            found = os.lstat(self._at(path))
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def write(self, path: str, content: bytes, version: object) -> bool:
        os.makedirs(os.path.dirname(self._at(path)), exist_ok=True)
        with replacement(self._at(path), content) as replace:
            if self.version(path) != version:
                return False
            replace()
            return True

    def create(self, path: str, content: bytes) -> bool:
        os.makedirs(os.path.dirname(self._at(path)), exist_ok=True)
        with temporary_file(self._at(path), content) as temporary:
            try:
                os.link(temporary, self._at(path))
            except FileExistsError:
                return False
            except OSError:  # a disk without hard links: nearly as good
                if self.version(path) is not None:
                    return False
                os.replace(temporary, self._at(path))
            return True

    def remove(self, path: str) -> None:
        os.unlink(self._at(path))

    def remove_empty(self, path: str) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(self._at(path))

    def age(self, path: str) -> float:
        folder = os.path.dirname(self._at(path))
        with temporary_file(os.path.join(folder, "now"), b"") as now:
            return os.stat(now).st_mtime - os.lstat(self._at(path)).st_mtime

    def _at(self, path: str) -> str:
        return os.path.join(self._root, *path.split("/"))


class MemoryFolder:
    """Files that could not be written, kept for as long as the process lasts."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def names(self, path: str) -> list[str]:
        head = f"{path}/" if path else ""
        below = [each for each in list(self._files) if each.startswith(head)]
        return sorted({each[len(head) :].partition("/")[0] for each in below})

    def content(self, path: str) -> bytes | None:
        return self._files.get(path)

    def version(self, path: str) -> object:
        return self._files.get(path)

    def write(self, path: str, content: bytes, version: object) -> bool:
        self._files[path] = content
        return True

    def create(self, path: str, content: bytes) -> bool:
        return self._files.setdefault(path, content) is content

    def remove(self, path: str) -> None:
        del self._files[path]

    def remove_empty(self, path: str) -> None:
        pass

    def age(self, path: str) -> float:
        return 0.0


class NoFolder(MemoryFolder):
    """An always empty stand-in for a folder that has no path."""

    def __init__(self, reason: str):
        super().__init__()
        self._reason = reason

    def write(self, path: str, content: bytes, version: object) -> bool:
        raise OSError(self._reason)

    def create(self, path: str, content: bytes) -> bool:
        raise OSError(self._reason)


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
            RefusedError: if writing is not permitted, or there is no such bucket;
                reading still may be possible.
        """
        try:
            self._written(path, content, **mode)
        except PermissionError:
            raise RefusedError("it may not be written") from None
        except FileNotFoundError:
            raise RefusedError("there is no such folder or bucket") from None

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
            raise AwayError("it was not reached before")
        try:
            return within(PATIENCE, ask)
        except RefusedError as error:
            raise AwayError(str(error)) from None
        except Exception as error:
            self._away_until = time.monotonic() + PAUSE
            raise AwayError(type(error).__name__) from None

    def _at(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}".rstrip("/")


def is_reachable(folder: Folder) -> bool:
    """Whether a folder is local, or remote and not paused."""
    return not (isinstance(folder, RemoteFolder) and folder.is_away)


class AwayError(OSError):
    """A remote folder can't be reached, or not now."""


class RefusedError(Exception):
    """A remote folder can't be written, which its text explains."""


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


def folder_at(location: str) -> Folder:
    """The folder at a path or a URL. Nothing is read or written.

    Raises:
        ImportError: if it is a URL and a package for it is missing.
        ValueError: if it is a URL of an unknown kind.
    """
    if "://" in location:
        return RemoteFolder(location)
    if location.startswith("~"):
        return NoFolder("there is no home directory")
    return LocalFolder(location)


def is_missing(path: str, error: OSError) -> bool:
    """Whether a path could not be read because nothing is there, even if it is a folder
    above it that can't be read."""
    if isinstance(error, FileNotFoundError):
        return not os.path.islink(path)
    return not os.path.lexists(path)


def read_plain(path: str) -> bytes:
    """The content of a plain file that is not too large."""
    check_file(os.stat(path))
    # A pipe that replaces the file in between must not block the open.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        check_file(os.fstat(file.fileno()))
        content = file.read(MAX_BYTES + 1)
    check_size(len(content))
    return content


def check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no plain file")
    check_size(status.st_size)


def check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise OSError(f"it has {size} bytes, more than {MAX_BYTES}")


@contextlib.contextmanager
def replacement(path: str, content: bytes) -> Iterator[Any]:
    """A temporary file beside `path`, written to the disk.

    Yields:
        A function that replaces `path` by it, atomically. Otherwise it is removed.
    """
    with temporary_file(path, content) as temporary:
        yield lambda: os.replace(temporary, path)


@contextlib.contextmanager
def temporary_file(path: str, content: bytes) -> Iterator[str]:
    """A temporary file beside `path`, written to the disk, and removed at the end if
    still there.

    Yields:
        Its path.
    """
    temporary = os.path.join(os.path.dirname(path), f".{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            file.close()
            yield temporary
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


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
