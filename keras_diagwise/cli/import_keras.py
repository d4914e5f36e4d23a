"""Imports Keras for the commands that need it: help and version do without."""

from __future__ import annotations

import os
import sys

from keras_diagwise.cli.errors import UserError


def import_keras() -> None:
    """Imports Keras, its backend and this package, which takes seconds.

    Raises:
        UserError: if the backend can't be imported.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        run_package()
    except ImportError as error:
        raise UserError(
            f"Keras or its backend can't be imported ({error}). Install a backend, "
            "for example with: pip install 'keras-diagwise[jax]', and name it in the "
            "variable KERAS_BACKEND: jax, tensorflow or torch"
        ) from error


def run_package() -> None:
    """Runs `keras_diagwise/__init__.py`, which the console script has put off."""
    package = sys.modules["keras_diagwise"]
    if not hasattr(package, "__all__"):
        assert package.__spec__ is not None
        assert package.__spec__.loader is not None
        package.__spec__.loader.exec_module(package)
