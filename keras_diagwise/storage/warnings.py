"""The store's warnings: each given once, and not too many."""

from __future__ import annotations

import logging
import threading

from keras_diagwise._terminal import printable
from keras_diagwise.storage.locations import VARIABLE, shown
from keras_diagwise.storage.remote_folder import AwayError

MAX_WARNINGS = 5
"""Most unusable files that are named, one per line."""

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
            self.passed_over(path, error)

    def away(self, error: AwayError) -> None:
        """Warns that a URL can't be reached."""
        self._say(
            f"{self._location} can't be reached ({reason(error)}). Until it can, the "
            "decisions of this machine serve, and what is measured is kept here and "
            "sent then. keras-diagwise doctor looks for what is wrong.",
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

    def passed_over(self, path: str, error: Exception) -> None:
        """Warns that a file can't be used."""
        with self._lock:
            if path not in self._named and len(self._named) == MAX_WARNINGS:
                return self._say("further files that can't be used are not named.")
            self._named.add(path)
        where = "/".join(filter(None, (self._location, path)))
        self._say(
            f"{where} can't be used and is passed over: {reason(error)}", f"/{path}"
        )

    def _say(self, message: str, what: str = "more") -> None:
        with self._lock:
            new = what not in self._said
            self._said.add(what)
        if new:
            logger.warning("keras_diagwise: %s", message)


class Unusable(Warnings):
    """Collects what can't be used, instead of warnings."""

    def __init__(self, location: str):
        super().__init__(location)
        self.found: dict[str, str] = {}

    def passed_over(self, path: str, error: Exception) -> None:
        self.found[path] = reason(error)

    def away(self, error: AwayError) -> None:
        self.found.setdefault("", f"it can't be reached ({reason(error)})")


def reason(error: Exception) -> str:
    """What was wrong, in a few words."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    text = printable(" ".join(text.split()))  # it may quote the file
    return text if len(text) < 200 else f"{text[:200]}…"
