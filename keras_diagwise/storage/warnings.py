"""The store's warnings: each given once, and not too many."""

from __future__ import annotations

import logging
import threading

from keras_diagwise._terminal import short
from keras_diagwise.storage.locations import VARIABLE, shown
from keras_diagwise.storage.remote_folder import AwayError, WriteRefusedError

MAX_WARNINGS = 5
"""Most unusable files that are named, one per line."""

MAX_LETTERS = 200
"""Longest reason shown."""

logger = logging.getLogger("keras_diagwise")


class Warnings:
    """Gives each warning once, and not too many."""

    def __init__(self, location: str):
        self._location = shown(location)
        self._said: set[str] = set()
        self._named: set[str] = set()
        self._lock = threading.RLock()

    def not_written(self, error: OSError) -> None:
        """Warns that nothing can be written, or the URL not reached."""
        if isinstance(error, AwayError):
            self.away(error)
        else:
            self.lasts_in_memory(error)

    def not_read(self, path: str, error: Exception) -> None:
        """Warns that a file can't be used, or the URL not reached."""
        if isinstance(error, AwayError):
            self.away(error)
        else:
            self.ignored(path, error)

    def away(self, error: AwayError) -> None:
        """Warns that a URL can't be reached, or not be written."""
        if isinstance(error, WriteRefusedError):
            self._say(
                f"{self._location} can't be written ({reason(error)}). New "
                "measurements are kept on this machine, and uploaded once it can be. "
                "It is still read.",
                "refused",
            )
            return
        self._say(
            f"{self._location} can't be reached ({reason(error)}). Until it can be, "
            "decisions kept on this machine are used; new measurements are kept here "
            "too, and uploaded later. keras-diagwise doctor looks for the cause.",
            "away",
        )

    def lasts_in_memory(self, error: OSError) -> None:
        """Warns that nothing can be written."""
        self._say(
            f"decisions can't be written to {self._location} ({reason(error)}) and "
            "last for this process only. Set keras_diagwise.decisions.location, or "
            f"the variable {VARIABLE}, to a folder that can be written.",
            "in memory",
        )

    def ignored(self, path: str, error: Exception) -> None:
        """Warns that a file can't be used."""
        with self._lock:
            if path not in self._named and len(self._named) == MAX_WARNINGS:
                return self._say("further files that can't be used are not named.")
            self._named.add(path)
        where = "/".join(filter(None, (self._location, path)))
        self._say(f"{where} can't be used and is ignored: {reason(error)}", f"/{path}")

    def _say(self, message: str, key: str = "more") -> None:
        with self._lock:
            new = key not in self._said
            self._said.add(key)
        if new:
            logger.warning("keras_diagwise: %s", message)


class Unusable(Warnings):
    """Collects what can't be used, instead of warnings."""

    def __init__(self, location: str):
        super().__init__(location)
        self.found: dict[str, str] = {}

    def ignored(self, path: str, error: Exception) -> None:
        self.found[path] = reason(error)

    def away(self, error: AwayError) -> None:
        self.found.setdefault("", f"it can't be reached ({reason(error)})")


def reason(error: Exception) -> str:
    """What was wrong, in a few words."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return short(text, MAX_LETTERS)  # it may quote the file
