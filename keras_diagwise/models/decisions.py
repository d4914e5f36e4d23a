"""Decisions measured on this machine: their location, settings, export and import."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import keras

from keras_diagwise._terminal import short
from keras_diagwise.models.arguments import check_model
from keras_diagwise.models.environment import environment_of_models
from keras_diagwise.models.swap import forget_compiled
from keras_diagwise.ops import dispatcher
from keras_diagwise.storage.document import Document
from keras_diagwise.storage.locations import shown
from keras_diagwise.storage.plain_files import replacement
from keras_diagwise.storage.store import Store
from keras_diagwise.tuner.tuner import Tuner

MAX_LETTERS = 500
"""Limit of a refusal's text, which can quote the whole document."""


class Decisions:
    """Decisions measured on this machine: their location, settings, export and import.

    Example:

    >>> keras_diagwise.decisions.location = "/shared/decisions"
    >>> keras_diagwise.decisions.on_miss = "native"
    >>> keras_diagwise.decisions.export("decisions.json")
    17
    >>> keras_diagwise.decisions.import_("theirs.json", models=[model])
    4
    """

    def __repr__(self) -> str:
        return (
            f"Decisions(location={shown(self.location)!r}, on_miss={self.on_miss!r}, "
            f"precision={self.precision!r})"
        )

    @property
    def location(self) -> str:
        """Where decisions are kept: a folder, or a URL that fsspec can reach.

        Defaults to the environment variable `KERAS_DIAGWISE_STORE`, or else to the
        user's cache folder; `None` restores the default. A new location holds for this
        process, and for traces made from then on.
        """
        return dispatcher.store.location

    @location.setter
    def location(self, location: str | Path | None) -> None:
        dispatcher.store = Store(location)

    @property
    def on_miss(self) -> str:
        """Behaviour on a cache miss: this very problem was not measured here.

        `"nearest"` takes the decision of the nearest source, such as the nearest
        measured problem; `"native"` runs the stock convolution; `"tune"` measures at
        once in eager code, and inside a trace queues the problem for the next
        `keras_diagwise.tune`; `"error"` raises.
        """
        return dispatcher.settings.on_miss

    @on_miss.setter
    def on_miss(self, value: str) -> None:
        dispatcher.settings.on_miss = value

    @property
    def precision(self) -> str:
        """Precision that an algorithm needs to serve an `"auto"` layer.

        `"standard"`, the default: that of the backend's own standard convolution in
        its current mode, TF32 or reduced precision included. `"strict"`: that of
        stock's convolution of this very problem, up to rounding in the problem's
        dtype. On a GPU, `"strict"` can rule out `diagonal`, whose dense blocks run in
        TF32, where stock's kernel does not use it. Measurements hold under both.
        """
        return dispatcher.settings.precision

    @precision.setter
    def precision(self, value: str) -> None:
        dispatcher.settings.precision = value

    def document(self) -> Document:
        """All kept decisions."""
        return dispatcher.store.document()

    def export(self, path: str | Path) -> int:
        """Writes all decisions to one JSON file.

        Args:
            path: the file; an existing one is replaced atomically.

        Returns:
            How many decisions it holds.

        Raises:
            ValueError: if `path` can't be such a file, or it would be too large.
        """
        document = self.document()
        write_document(document, path)
        return len(document)

    def import_(
        self,
        path: str | Path,
        models: keras.Model | Iterable[keras.Model] = (),
        *,
        verify: bool = False,
    ) -> int:
        """Merges the decisions of a file that `export` wrote into the store.

        For each pass the comparison with more candidates wins, then the later one.
        The whole file is checked before anything is kept.

        Args:
            path: the file.
            models: models that run by the new decisions from their next step on.
                Others do so once they are recompiled.
            verify: whether to check every timed candidate on this device against
                float64 first, so that none that is wrong, fails or crashes here
                is used. A candidate that runs out of time or memory here is still used
                if the store has its time. Decisions for another backend or kind of
                device are then left out.

        Returns:
            How many decisions were new, or changed what was known.

        Raises:
            TypeError: if `models` holds anything but models.
            ValueError: if the file is not one that `export` wrote, or is invalid;
                nothing is then kept.
        """
        models = [models] if isinstance(models, keras.Model) else list(models)
        for model in models:
            check_model(model)
        document = read_document(path)
        if verify:
            document = verified(document)
        changed = dispatcher.store.merge(document)
        dispatcher.forget()
        for model in models:
            forget_compiled(model)
        return changed

    def clear(self) -> int:
        """Removes all kept decisions.

        Returns:
            How many there were.
        """
        removed = dispatcher.store.clear()
        dispatcher.forget()
        return removed


def verified(document: Document) -> Document:
    """The part of a document that can be verified here, failures recorded as such."""
    here = environment_of_models()
    found = Document()
    for environment in document.environments():
        if not environment.computes_like(here):
            continue
        with contextlib.closing(Tuner(dispatcher.store, environment)) as tuner:
            decisions = document.entries[environment].values()
            found |= Document.of(environment, map(tuner.verified, decisions))
    return found


def write_document(document: Document, path: str | Path) -> None:
    """Writes a document, atomically replacing an existing file.

    Raises:
        ValueError: if `path` can't be such a file, or it would be too large.
    """
    target = exportable(path)
    with replacement(target, document.to_bytes()) as replace:
        replace()


def measured_here() -> Document:
    """Kept decisions of this device, under any backend, versions and compiler mode."""
    here = environment_of_models()
    return Document(
        {
            environment: decisions
            for environment, decisions in dispatcher.store.document().entries.items()
            if environment.is_same_device(here)
        }
    )


def read_document(path: str | Path) -> Document:
    """The document in a file.

    Raises:
        ValueError: if there is no such file, or it is invalid.
    """
    if not os.path.isfile(os.fspath(path)):
        raise ValueError(
            "`path` must be a file that keras_diagwise.decisions.export wrote. "
            f"Received: path={os.fspath(path)!r}"
        )
    try:
        document = Document.read(path)
        document.check_dates()
        return document
    except Exception as error:  # a hostile file can fail in any way
        raise ValueError(
            f"{briefly(error)} Nothing was imported. `path` must be a file that "
            f"keras_diagwise.decisions.export wrote. Received: path={os.fspath(path)!r}"
        ) from None


def exportable(path: str | Path) -> str:
    """The absolute path to write to.

    Raises:
        ValueError: if no file can be written there.
    """
    target = os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):
        problem = "is not a regular file"
    elif not os.path.isdir(os.path.dirname(target)):
        problem = "is in a folder that does not exist"
    elif not os.access(os.path.dirname(target), os.W_OK):
        problem = "is in a folder that can't be written"
    else:
        return target
    raise ValueError(
        f"`path` must name a file that can be written, but {problem}. "
        f"Received: path={os.fspath(path)!r}"
    )


def briefly(error: Exception) -> str:
    """An error's message as one sentence, truncated."""
    text = short(str(error), MAX_LETTERS) or type(error).__name__
    return text if text.endswith(".") else f"{text}."


decisions = Decisions()
