"""Files from anywhere: plain, and no larger than what reads them allows."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np

from keras_diagwise.storage.folders import replacement

Name = str | os.PathLike[str]

MAX_TEXT = 2**20
"""Bytes of a text that describes a network."""


class Reader:
    """A file of weights, from which bytes are read where they are wanted.

    Args:
        path: of the file.

    Attributes:
        size: bytes in it.

    Raises:
        ValueError: if it is no plain file.
    """

    def __init__(self, path: Name):
        self.path, self.size = path, size_of(path, "weights")
        self._view = np.memmap(path, "u1", "r") if self.size else np.empty(0, "u1")

    def bytes(self, start: int, stop: int) -> bytes:
        """Those from one place to another, as far as the file has them."""
        return self._view[start:stop].tobytes()

    def error(self, byte: int, reason: str) -> ValueError:
        return ValueError(f"{self.path}, byte {byte}: {reason}")


def size_of(path: Name, argument: str) -> int:
    """Bytes in a plain file.

    Args:
        path: the file.
        argument: which argument of the user's names it.

    Raises:
        ValueError: if there is none: a device or a pipe would have no end.
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
    """The text of a file; what is no UTF-8 is replaced.

    Raises:
        ValueError: if there is none, or it has more than `MAX_TEXT` bytes.
    """
    size = size_of(path, argument)
    if size > MAX_TEXT:
        raise ValueError(
            f"`{argument}` must have at most {MAX_TEXT:,} bytes. Received: "
            f"{argument}={str(path)!r} of {size:,} bytes"
        )
    return Path(path).read_text(encoding="utf-8", errors="replace")


def replace(path: Name, argument: str, content: bytes) -> None:
    """Puts a file in place of what is there, which is whole until then.

    Raises:
        ValueError: if what is there is no plain file.
    """
    target = os.path.realpath(path)
    if os.path.exists(target):
        size_of(target, argument)
    with replacement(target, content) as put:
        put()
