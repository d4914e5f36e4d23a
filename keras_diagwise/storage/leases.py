"""Leases: which of several workers does a task, so that the others need not.

A lease is a file in the store that says who holds it and until when; its format and
folder are called `claim`. It is advisory: nothing is locked. A worker that dies leaves
a lease that expires; if two workers do the same task, it is done twice, without harm.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from keras_diagwise.records import Record
from keras_diagwise.storage.files import (
    LEASE_NAME,
    generation_of,
    lease_from_bytes,
    lease_name,
    lease_to_bytes,
)
from keras_diagwise.storage.folders import Folder

LEASE_SECONDS = 30.0
"""Seconds after which a lease expires unless it is renewed."""
CLOCKS_DIFFER = 300.0
"""Seconds by which the clocks of two machines may differ."""
RENEWALS = 4
"""Renewals of a lease within the time in which it would expire."""


class Lease(Record, frozen=True):
    """Contents of the file of a lease.

    Attributes:
        host: the holder's machine.
        process: the holder's process.
        namespace: the machine's start and container that `process` is in: another may
            have the same name.
        token: a random text unique to the lease.
        time: when it was last renewed, in seconds since 1970.
        expires: when it expires.
    """

    RULE = "A lease must have a holder and times"

    host: str
    process: Annotated[int, Meta(ge=1)]
    namespace: str
    token: str
    time: float
    expires: float

    @property
    def is_over(self) -> bool:
        """Whether it has expired by the clock, or its holder is gone."""
        difference = 0.0 if self.is_near else CLOCKS_DIFFER
        return self.expires + difference < time.time() or self.holder_is_gone

    @property
    def is_near(self) -> bool:
        """Whether the holder is in this machine and container."""
        return self.host == host() and self.namespace == namespace()

    @property
    def holder_is_gone(self) -> bool:
        """Whether the holder's process is known here to have ended."""
        if not self.is_near or os.name != "posix":
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


class Leases:
    """The leases of the workers that share a folder.

    A lease is taken over by creating the file of the next generation, which only one
    worker can. It has expired by the clock, or if it does not change while it is
    watched, so that no clock need be right.

    Args:
        folder: the folder of the store.
        path: the path of the leases' folder in it.
        failed: called with an error that prevents a lease.
        seconds: time after which a lease expires unless renewed; `LEASE_SECONDS` if
            not given.
    """

    def __init__(
        self,
        folder: Folder,
        path: str,
        failed: Callable[[OSError], None],
        seconds: float | None = None,
    ):
        self._folder, self._path, self._failed = folder, path, failed
        self._seconds = LEASE_SECONDS if seconds is None else seconds
        self._watched: dict[str, tuple[bytes, float]] = {}

    @contextlib.contextmanager
    def held(self, task: str) -> Iterator[bool]:
        """Holds the lease on a task, and renews it meanwhile.

        Args:
            task: a digest of it.

        Yields:
            Whether to do the task: `False` if another worker holds the lease. Where no
            lease can be created, each worker does the task.
        """
        try:
            name = self._acquire(task)
        except OSError as error:
            self._failed(error)
            yield True
            return
        if name is None:
            yield False
            return
        ended = threading.Event()
        renewing = threading.Thread(
            target=self._renew, args=(name, ended), daemon=True, name="lease"
        )
        renewing.start()
        try:
            yield True
        finally:
            ended.set()
            renewing.join()
            self._release(task, name)

    def _acquire(self, task: str) -> str | None:
        """The name of the lease that was acquired, or `None`."""
        before = self._names(task)
        latest = max(before, key=generation_of, default=None)
        if latest is not None and not self._is_over(latest):
            return None
        name = lease_name(task, generation_of(latest) + 1 if latest else 1)
        if not self._folder.create(self._at(name), self._content()):
            return None
        # The latest may have been released and taken anew since it was looked at.
        if not self._has_rival(task, {name, *before} - {latest}):
            return name
        with contextlib.suppress(OSError):  # it expires
            self._folder.remove(self._at(name))
        return None

    def _has_rival(self, task: str, aside: Collection[str]) -> bool:
        """Whether another worker holds a lease on a task. If that can't be seen, this
        worker's lease is kept: it has been created, and must be renewed and released.

        Args:
            task: a digest of the task.
            aside: this worker's lease, and leases that are over.
        """
        try:
            others = {*self._names(task)} - {*aside}
            return not all(map(self._is_over, others))
        except OSError:
            return False

    def _names(self, task: str) -> list[str]:
        names = self._folder.names(self._path)
        return [n for n in names if LEASE_NAME.fullmatch(n) and n.startswith(task)]

    def _is_over(self, name: str) -> bool:
        content = self._folder.content(self._at(name))
        if content is None:  # released meanwhile
            return True
        now = time.monotonic()
        before, since = self._watched.setdefault(name, (content, now))
        if before != content:
            self._watched[name] = content, now
        elif now - since > self._seconds:
            return True
        try:
            lease = Lease.from_dict(lease_from_bytes(content))
            return lease.is_over
        except Exception:  # of another version, or damaged: only watched
            return False

    def _content(self) -> bytes:
        now = time.time()
        lease = Lease(
            host(),
            os.getpid(),
            namespace(),
            secrets.token_hex(8),
            now,
            now + self._seconds,
        )
        return lease_to_bytes(lease.to_dict())

    def _renew(self, name: str, ended: threading.Event) -> None:
        path = self._at(name)
        while not ended.wait(self._seconds / RENEWALS):
            try:
                self._folder.write(path, self._content(), self._folder.version(path))
            except OSError:  # it expires, and another may do the same task
                continue

    def _release(self, task: str, name: str) -> None:
        """Removes this worker's lease, after those that expired before it."""
        try:
            older = [
                each
                for each in self._names(task)
                if generation_of(each) < generation_of(name)
            ]
            for each in (*sorted(older, key=generation_of), name):
                self._watched.pop(each, None)
                self._folder.remove(self._at(each))
        except OSError:  # another removed it, or it expires
            return

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"


@functools.cache
def host() -> str:
    """The name of this machine."""
    return socket.gethostname()


@functools.cache
def namespace() -> str:
    """The start of this machine and the namespace of this process, as far as they can
    be read; empty outside Linux."""
    parts = []
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
