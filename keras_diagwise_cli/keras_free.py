"""Modules of keras_diagwise that need no Keras, loaded without the package.

Importing them by their names would import the package first, and so Keras, which takes
seconds.
"""

from __future__ import annotations

import functools
import importlib.util
import types
from pathlib import Path


@functools.cache
def keras_free_module(name: str) -> types.ModuleType:
    """A module of keras_diagwise, loaded from its file.

    Args:
        name: path below the package, such as `storage/locations`, of a module that
            imports nothing of it.
    """
    package = importlib.util.find_spec("keras_diagwise")  # imports nothing
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(Path(name).name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def version() -> str:
    """The version of keras_diagwise."""
    return keras_free_module("version").__version__
