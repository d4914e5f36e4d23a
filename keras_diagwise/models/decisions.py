"""What was measured on this machine: where it is kept, how it is used and shared."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import keras

from keras_diagwise._terminal import printable
from keras_diagwise.models.convert import check_model
from keras_diagwise.models.environment import environment_of_models
from keras_diagwise.models.swap import forget_compiled
from keras_diagwise.ops import dispatcher
from keras_diagwise.storage.document import Document
from keras_diagwise.storage.folders import replacement
from keras_diagwise.storage.locations import shown
from keras_diagwise.storage.store import Store
from keras_diagwise.tuner.tuner import Tuner

MAX_LETTERS = 500
"""Of a reason why a document is refused: it can quote all of the document."""


class Decisions:
    """What was measured on this machine: where it is kept, how it is used and shared.

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

        At first it is what the variable `KERAS_DIAGWISE_STORE` says, or else the
        user's cache folder. Set to `None`, it is that again. What is set holds for
        this process, and for what is traced from then on.
        """
        return dispatcher.store.location

    @location.setter
    def location(self, location: str | Path | None) -> None:
        dispatcher.store = Store(location)

    @property
    def on_miss(self) -> str:
        """What happens where this very problem was not measured here.

        `"nearest"` takes the decision of the nearest source, such as the nearest
        problem that was; `"native"` runs the stock convolution; `"tune"` measures
        at once in eager code, and leaves what is met inside a trace to the next
        `keras_diagwise.tune`; `"error"` raises.
        """
        return dispatcher.settings.on_miss

    @on_miss.setter
    def on_miss(self, value: str) -> None:
        dispatcher.settings.on_miss = value

    @property
    def precision(self) -> str:
        """How precise an algorithm must be to serve an `"auto"` layer.

        `"standard"`, the default: no less than the backend's own standard convolution
        in the mode that it is in, with what TF32 or reduced precision leaves off.
        `"strict"`: no less than stock's convolution of this very problem, but for
        rounding in the problem's own dtype. On a GPU that can keep `diagonal`, whose
        dense blocks run in TF32, from serving where stock's kernel does not use it.
        What was measured under one holds for the other.
        """
        return dispatcher.settings.precision

    @precision.setter
    def precision(self, value: str) -> None:
        dispatcher.settings.precision = value

    def document(self) -> Document:
        """All decisions that are kept."""
        return dispatcher.store.document()

    def export(self, path: str | Path) -> int:
        """Writes all decisions to one JSON file.

        Args:
            path: the file; what is there is replaced at once.

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
        """Adds the decisions of a file that `export` wrote to those that are kept.

        Of each pass the comparison of more candidates stays, else the later one.
        The whole file is checked before anything is kept.

        Args:
            path: the file.
            models: models that shall run by the new decisions from their next step
                on. Others do once they are compiled anew.
            verify: whether to compute every candidate that was timed, on this device,
                against float64 first: what is wrong or fails here does not serve. What
                is for another backend or kind of device is left out then.

        Returns:
            How many decisions were new, or changed what was known.

        Raises:
            TypeError: if `models` holds what is no model.
            ValueError: if the file is not one that `export` wrote, or something in
                it is not right; nothing is kept then.
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
        """Removes all decisions that are kept.

        Returns:
            How many there were.
        """
        removed = dispatcher.store.clear()
        dispatcher.forget()
        return removed


def verified(document: Document) -> Document:
    """What of a document can be verified here, with what fails here as failures."""
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
    """Writes a document, in place of what is there, at once.

    Raises:
        ValueError: if `path` can't be such a file, or it would be too large.
    """
    target = exportable(path)
    with replacement(target, document.to_bytes()) as replace:
        replace()


def measured_here() -> Document:
    """The decisions that are kept of this device, under whatever backend, versions and
    compiler mode."""
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
        ValueError: if there is none, or something in it is not right.
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
        ValueError: if no file can be there.
    """
    target = os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):
        problem = "is no plain file"
    elif not os.path.isdir(os.path.dirname(target)):
        problem = "is in a folder that does not exist"
    elif not os.access(os.path.dirname(target), os.W_OK):
        problem = "is in a folder that can't be written"
    else:
        return target
    raise ValueError(
        f"`path` must be a file's, to write to, but {problem}. "
        f"Received: path={os.fspath(path)!r}"
    )


def briefly(error: Exception) -> str:
    """What is wrong, as a sentence that is not too long."""
    text = printable(" ".join(str(error).split())) or type(error).__name__
    text = text if len(text) <= MAX_LETTERS else f"{text[:MAX_LETTERS]}…"
    return text if text.endswith(".") else f"{text}."


decisions = Decisions()
