"""Access to untrusted files: plain files only, with limits on size."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np

from keras_diagwise.storage.plain_files import replacement

Name = str | os.PathLike[str]

MAX_TEXT = 2**20
"""Limit in bytes of a text that describes a network."""


class Reader:
    """Random access to a file of weights.

    Args:
        path: path of the file.

    Attributes:
        size: size of the file in bytes.

    Raises:
        ValueError: if it is not a plain file.
    """

    def __init__(self, path: Name):
        self.path, self.size = path, size_of(path, "weights")
        self._view = np.memmap(path, "u1", "r") if self.size else np.empty(0, "u1")

    def bytes(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop`, fewer at the end of the file."""
        return self._view[start:stop].tobytes()

    def error(self, byte: int, reason: str) -> ValueError:
        return ValueError(f"{self.path}, byte {byte}: {reason}")


def size_of(path: Name, argument: str) -> int:
    """Size of a plain file in bytes.

    Args:
        path: the file.
        argument: name of the user's argument, for the error.

    Raises:
        ValueError: if there is no plain file: a device or a pipe would have no end.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ValueError(
            f"`{argument}` must be a file that can be read. "
            f"Received: {argument}={str(path)!r} ({error})"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(
            f"`{argument}` must be a plain file. Received: {argument}={str(path)!r}"
        )
    return status.st_size


def text_of(path: Name, argument: str) -> str:
    """The text of a file; invalid UTF-8 is replaced.

    Raises:
        ValueError: if there is no plain file, or it has more than `MAX_TEXT` bytes.
    """
    size = size_of(path, argument)
    if size > MAX_TEXT:
        raise ValueError(
            f"`{argument}` must have at most {MAX_TEXT:,} bytes. Received: "
            f"{argument}={str(path)!r} of {size:,} bytes"
        )
    return Path(path).read_text(encoding="utf-8", errors="replace")


def replace(path: Name, argument: str, content: bytes) -> None:
    """Writes a file, atomically replacing an existing one.

    Raises:
        ValueError: if the path exists and is not a plain file.
    """
    target = os.path.realpath(path)
    if os.path.exists(target):
        size_of(target, argument)
    with replacement(target, content) as put:
        put()
