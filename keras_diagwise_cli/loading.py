"""Loads keras_diagwise, and with it Keras and its backend, which takes seconds."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from pathlib import Path

import typer

from keras_diagwise_cli.errors import UserError, user_errors
from keras_diagwise_cli.keras_free import keras_free_module
from keras_diagwise_cli.terminal.progress import Progress

NAMES = keras_free_module("backends/names")
BACKENDS: tuple[str, ...] = NAMES.TRAINING

KERAS_DEFAULT = "tensorflow"


def load_package() -> None:
    """Imports keras_diagwise, Keras and its backend, with a message meanwhile.

    A command that needs them calls this first, and imports from them afterwards.

    Raises:
        UserError: if the backend is unknown, or can't be imported.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    choose_backend()  # before the bar, whose line its message would join
    check_backend()
    with (
        Progress() as progress,
        progress.phase("loading Keras"),
        user_errors(ImportError, saying=how_to_install),
    ):
        importlib.import_module("keras_diagwise")


def check_backend() -> None:
    """Checks the backend's name, for which Keras would print a traceback.

    Raises:
        UserError: if there is no such backend.
    """
    if backend_name() not in (*BACKENDS, *NAMES.INFERENCE_ONLY):
        raise UserError(
            f"Keras's backend must be one of {', '.join(BACKENDS)}. Set the variable "
            "KERAS_BACKEND, or 'backend' in ~/.keras/keras.json. "
            f"Received: {backend_name()!r}"
        )


def how_to_install(error: ImportError) -> str:
    """What to do if Keras or its backend can't be imported."""
    example = backend_name() if backend_name() in BACKENDS else "jax"
    return (
        f"Keras or its backend can't be imported ({error}). Install a backend, for "
        f"example with: pip install 'keras-diagwise[{example}]', and name it in the "
        f"variable KERAS_BACKEND: {', '.join(BACKENDS)}"
    )


def backend_name() -> str:
    """The backend that Keras will import."""
    return os.environ.get("KERAS_BACKEND") or configured_backend()


def choose_backend() -> None:
    """Chooses an installed backend if none is named and Keras's choice is missing.

    Keras defaults to TensorFlow.
    """
    if os.environ.get("KERAS_BACKEND"):
        return
    configured = configured_backend()
    installed = [each for each in BACKENDS if importlib.util.find_spec(each)]
    if configured not in BACKENDS or configured in installed or not installed:
        return
    os.environ["KERAS_BACKEND"] = installed[0]
    typer.echo(
        f"KERAS_BACKEND is not set, and {configured} is not installed; using "
        f"{installed[0]}.",
        err=True,
    )


def configured_backend() -> str:
    """The backend in Keras's own file, or else its default.

    Keras writes its default there at first import, so it may be nobody's choice.
    """
    folder = os.environ.get("KERAS_HOME") or "~/.keras"
    try:
        text = Path(folder, "keras.json").expanduser().read_text(encoding="utf-8")
        return json.loads(text).get("backend", KERAS_DEFAULT)
    except (OSError, ValueError, AttributeError, RuntimeError):
        return KERAS_DEFAULT
