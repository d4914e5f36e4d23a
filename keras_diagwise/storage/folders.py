"""Where the store keeps its files: in a folder, in memory, or behind a URL."""

from __future__ import annotations

import contextlib
import os
from typing import Protocol

from keras_diagwise.storage.plain_files import (
    is_missing,
    read_plain,
    replacement,
    temporary_file,
)
from keras_diagwise.storage.remote_folder import RemoteFolder


class Folder(Protocol):
    """Files by their path below the folder, with `/` between names.

    Whatever can't be done raises an `OSError`.
    """

    def names(self, path: str) -> list[str]:
        """The names in a folder; none if there is no such folder."""

    def content(self, path: str) -> bytes | None:
        """A file's content, or `None` if nothing has this name."""

    def version(self, path: str) -> object:
        """A value that changes whenever the file does; `None` if there is no file, or
        where no such value is known."""

    def write(self, path: str, content: bytes, version: object) -> bool:
        """Replaces a file atomically if its version is still this one, as far as
        versions are known."""

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
        if self._files.pop(path, None) is None:
            raise FileNotFoundError(path)

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


def is_reachable(folder: Folder) -> bool:
    """Whether a folder is local, or remote and not paused."""
    return not (isinstance(folder, RemoteFolder) and folder.is_away)


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
