"""Imports Keras for the commands that need it; help and version do not."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import typer

from keras_diagwise.cli.errors import UserError

BACKENDS = ("jax", "torch", "tensorflow")
PREDICTING = ("numpy", "openvino")
"""Backends that only predict."""

KERAS_DEFAULT = "tensorflow"


def import_keras() -> None:
    """Imports Keras, its backend and this package, which takes seconds.

    Raises:
        UserError: if the backend is unknown, or can't be imported.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    choose_backend()
    named = os.environ.get("KERAS_BACKEND") or configured_backend()
    if named not in (*BACKENDS, *PREDICTING):
        raise UserError(
            "Keras's backend must be jax, tensorflow or torch, by the variable "
            "KERAS_BACKEND or, without it, by 'backend' in ~/.keras/keras.json. "
            f"Received: {named!r}"
        )
    try:
        run_package()
    except ImportError as error:
        example = named if named in BACKENDS else "jax"
        raise UserError(
            f"Keras or its backend can't be imported ({error}). Install a backend, "
            f"for example with: pip install 'keras-diagwise[{example}]', and name it "
            "in the variable KERAS_BACKEND: jax, tensorflow or torch"
        ) from error


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
        f"KERAS_BACKEND is not set, and {configured} is not installed: "
        f"{installed[0]} serves.",
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


def run_package() -> None:
    """Runs `keras_diagwise/__init__.py`, which the console script has deferred."""
    package = sys.modules["keras_diagwise"]
    if not hasattr(package, "__all__"):
        assert package.__spec__ is not None
        assert package.__spec__.loader is not None
        package.__spec__.loader.exec_module(package)
