"""Locations of a store: a folder's path, or a URL. Imports no Keras, for the command
that prints it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import platformdirs

VARIABLE = "KERAS_DIAGWISE_STORE"
LAYOUT = "v1"


def standardize_location(location: str | Path | None) -> str:
    """`location`, or else the default one, as an absolute path or a URL.

    Raises:
        ValueError: if it is neither a path nor a URL.
    """
    if location is None:
        location = os.environ.get(VARIABLE)
        if not location:
            return default_location()
    if not isinstance(location, str | Path) or not fits_a_path(str(location)):
        raise ValueError(
            "`location` must be a folder's path, or a URL. "
            f"Received: location={location!r}"
        )
    text = str(location).removeprefix("file://")
    if "://" in text:
        return text
    text = os.path.expanduser(text)
    return text if text.startswith("~") else os.path.abspath(text)


def fits_a_path(text: str) -> bool:
    try:
        return bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def default_location() -> str:
    """The package's folder in the user's cache."""
    try:
        folder = platformdirs.user_cache_path("keras-diagwise", appauthor=False)
    except RuntimeError:  # platformdirs 4.14 raises where there is no home
        folder = Path("~/keras-diagwise")
    return str(folder / LAYOUT)


def digest_of(*words: str) -> str:
    """A short hash of `words`."""
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def unsent_location(location: str) -> str:
    """The folder of files that could not be sent to a URL."""
    return os.path.join(default_location(), "unsent", digest_of(shown(location)))


def shown(location: str) -> str:
    """A location without the secrets of a URL: user, password, query."""
    scheme, separator, rest = location.partition("://")
    if not separator:
        return location
    plain = re.split("[?#]", rest)[0]
    if "@" in rest[len(plain) :]:  # a query, or a password that was not quoted
        return f"{scheme}://…"
    return f"{scheme}://{plain.rpartition('@')[2]}"
