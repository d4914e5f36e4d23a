"""Leases: which of several workers does a thing, so that the others need not.

A lease is a file in the store that says who holds it and until when; its format and
folder are called `claim`. It is advice: nothing is locked. A worker that dies leaves a
lease that expires; one that does the thing all the same does it twice, without harm.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from keras_diagwise.storage.files import (
    LEASE_NAME,
    generation_of,
    lease_from_bytes,
    lease_name,
    lease_to_bytes,
)
from keras_diagwise.storage.folders import Folder

LEASE_SECONDS = 30.0
"""Seconds that a lease holds when nobody renews it."""
RENEWALS = 4
"""How often a lease is renewed before it would expire."""


@dataclasses.dataclass(frozen=True)
class Lease:
    """What the file of a lease says.

    Attributes:
        host: the machine of who holds it.
        process: the process.
        token: what no other lease has.
        time: when it was renewed last, in seconds since 1970.
        expires: until when it holds.
    """

    host: str
    process: int
    token: str
    time: float
    expires: float

    @property
    def holder_is_gone(self) -> bool:
        """Whether the process that holds it has ended, so far as can be seen here."""
        if self.host != host() or os.name != "posix":
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

    A lease is taken over by making the file of the next number, which one worker alone
    can make. Whether one has expired is told by the clock, and by whether it changes
    while it is watched, so that no clock need be right.

    Args:
        folder: where the files lie.
        path: the path of their folder in it.
        failed: told of an error by which a lease can't be made.
        seconds: how long a lease holds when nobody renews it; `LEASE_SECONDS` if it is
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

    @contextmanager
    def held(self, what: str) -> Iterator[bool]:
        """Holds the lease to a thing, and renews it meanwhile.

        Args:
            what: a digest of the thing.

        Yields:
            Whether the thing may be done: `False` if another holds the lease. Where
            no lease can be made, each worker is on its own.
        """
        try:
            name = self._taken(what)
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
            self._release(what, name)

    def is_held(self, what: str) -> bool:
        """Whether another worker holds the lease to a thing."""
        try:
            latest = self._latest(what)
            return latest is not None and not self._is_over(latest)
        except OSError as error:
            self._failed(error)
            return False

    def _taken(self, what: str) -> str | None:
        """The name of the lease that is ours from here on, or `None`."""
        latest = self._latest(what)
        if latest is not None and not self._is_over(latest):
            return None
        name = lease_name(what, generation_of(latest) + 1 if latest else 1)
        return name if self._folder.create(self._at(name), self._content()) else None

    def _latest(self, what: str) -> str | None:
        """The name of the latest lease to a thing."""
        return max(self._names(what), key=generation_of, default=None)

    def _names(self, what: str) -> list[str]:
        names = self._folder.names(self._path)
        return [n for n in names if LEASE_NAME.fullmatch(n) and n.startswith(what)]

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
            lease = Lease(**lease_from_bytes(content))
            return lease.expires < time.time() or lease.holder_is_gone
        except Exception:  # of another version, or damaged: watched all the same
            return False

    def _content(self) -> bytes:
        now = time.time()
        lease = Lease(
            host(), os.getpid(), secrets.token_hex(8), now, now + self._seconds
        )
        return lease_to_bytes(dataclasses.asdict(lease))

    def _renew(self, name: str, ended: threading.Event) -> None:
        path = self._at(name)
        while not ended.wait(self._seconds / RENEWALS):
            try:
                self._folder.write(path, self._content(), self._folder.version(path))
            except OSError:  # it expires, and another may do the same thing
                continue

    def _release(self, what: str, name: str) -> None:
        """Removes a lease of ours, after those that had expired before it."""
        try:
            older = [
                each
                for each in self._names(what)
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
