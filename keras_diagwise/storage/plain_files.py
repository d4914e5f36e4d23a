"""Plain files on a disk: read with a limit, and replaced atomically."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from typing import Any

MAX_BYTES = 2**22
"""Largest file accepted: a decision takes a few kilobytes."""

TEMPORARY_NAME = re.compile(r"\.[0-9a-f]{16}\.tmp")


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
        raise OSError("it is not a regular file")
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
