"""Where the store's files lie: in a folder, in memory, or behind a URL."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from typing import Any, Protocol

MOST_BYTES = 2**22
"""What is larger is no file of ours: a decision takes a few kilobytes."""

TEMPORARY_NAME = re.compile(r"\.[0-9a-f]{16}\.tmp")


class Folder(Protocol):
    """Files by their path below the folder, with `/` between names.

    Whatever can't be done raises an `OSError`.
    """

    def names(self, path: str) -> list[str]:
        """What lies in a folder; nothing if there is none."""

    def content(self, path: str) -> bytes | None:
        """A file's content, or `None` if there is nothing of this name."""

    def version(self, path: str) -> object:
        """Something that changes whenever the file does."""

    def write(self, path: str, content: bytes, version: object) -> bool:
        """Replaces a file at once, whole, if its version is still this one."""

    def remove(self, path: str) -> None:
        """Removes a file."""

    def remove_empty(self, path: str) -> None:
        """Removes a folder if nothing is in it."""


class LocalFolder:
    """A folder on a disk, made when it is first written."""

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

    def remove(self, path: str) -> None:
        os.unlink(self._at(path))

    def remove_empty(self, path: str) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(self._at(path))

    def _at(self, path: str) -> str:
        return os.path.join(self._root, *path.split("/"))


class MemoryFolder:
    """What could not be written, for as long as the process lasts."""

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

    def remove(self, path: str) -> None:
        del self._files[path]

    def remove_empty(self, path: str) -> None:
        pass


class NoFolder(MemoryFolder):
    """Stands for a folder that can't be named: it is empty, and stays so."""

    def __init__(self, reason: str):
        super().__init__()
        self._reason = reason

    def write(self, path: str, content: bytes, version: object) -> bool:
        raise OSError(self._reason)


class RemoteFolder:
    """A folder that fsspec reaches.

    Its errors name the kind of the error alone: their texts may hold the URL, and
    that the password.
    """

    def __init__(self, location: str):
        self._system, self._root = file_system(location)

    def names(self, path: str) -> list[str]:
        with without_details():
            self._system.invalidate_cache()
            try:
                found = self._system.ls(self._at(path), detail=False)
            except FileNotFoundError:
                return []
        return [each.rstrip("/").rpartition("/")[2] for each in found]

    def content(self, path: str) -> bytes | None:
        with without_details():
            try:
                found = self._system.info(self._at(path))
            except FileNotFoundError:
                return None
        if found["type"] != "file":
            raise OSError("it is no plain file")
        check_size(found["size"] or 0)
        with without_details():
            return self._system.cat_file(self._at(path))

    def version(self, path: str) -> object:
        return None

    def write(self, path: str, content: bytes, version: object) -> bool:
        with without_details():
            head = self._at(path).rpartition("/")[0]
            self._system.makedirs(head, exist_ok=True)
            self._system.pipe_file(self._at(path), content)
        return True

    def remove(self, path: str) -> None:
        with without_details():
            self._system.rm_file(self._at(path))

    def remove_empty(self, path: str) -> None:
        with contextlib.suppress(Exception):
            self._system.rmdir(self._at(path))

    def _at(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}".rstrip("/")


def folder_at(location: str) -> Folder:
    """The folder at a path or a URL. Nothing is read or written.

    Raises:
        ImportError: if it is a URL and a package to reach it is missing.
        ValueError: if it is a URL of an unknown kind.
    """
    if "://" in location:
        return RemoteFolder(location)
    if location.startswith("~"):
        return NoFolder("there is no home directory")
    return LocalFolder(location)


def shown(location: str) -> str:
    """A location without what is secret in a URL: user, password, query."""
    scheme, separator, rest = location.partition("://")
    if not separator:
        return location
    plain = re.split("[?#]", rest)[0]
    if "@" in rest[len(plain) :]:  # a query, or a password that was not quoted
        return f"{scheme}://…"
    return f"{scheme}://{plain.rpartition('@')[2]}"


def is_missing(path: str, error: OSError) -> bool:
    """Whether a path could not be read because nothing is there, be it that a
    folder above it is the one that can't be read."""
    if isinstance(error, FileNotFoundError):
        return not os.path.islink(path)
    return not os.path.lexists(path)


def read_plain(path: str) -> bytes:
    """The content of a plain file that is not too large."""
    check_file(os.stat(path))
    # A pipe that takes the file's place meanwhile must not make the open wait.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:
        check_file(os.fstat(file.fileno()))
        content = file.read(MOST_BYTES + 1)
    check_size(len(content))
    return content


def check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no plain file")
    check_size(status.st_size)


def check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise OSError(f"it has {size} bytes, more than {MOST_BYTES}")


@contextlib.contextmanager
def replacement(path: str, content: bytes) -> Iterator[Any]:
    """A temporary file beside `path`, written to the disk.

    Yields:
        A function that puts it in the place of what is there, at once. What was
        not put there is removed.
    """
    temporary = os.path.join(os.path.dirname(path), f".{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            file.close()
            yield lambda: os.replace(temporary, path)
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


@contextlib.contextmanager
def without_details() -> Iterator[None]:
    """Any error as an `OSError` that tells its kind alone."""
    try:
        yield
    except Exception as error:
        raise OSError(type(error).__name__) from None
