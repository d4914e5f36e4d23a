"""Which format a file is of, by its name."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import keras

STRUCTURES = {".cfg": "darknet", "-symbol.json": "mxnet", ".prototxt": "caffe"}
"""The module of each format, by how the names of structures end."""

WEIGHTS = {
    r"\.weights": ".cfg",
    r"-\d{4}\.params": "-symbol.json",
    r"\.caffemodel": ".prototxt",
}
"""How a structure's name ends, by how its weights' does, an expression."""


def format_of(structure: Path) -> ModuleType:
    """The module that loads and saves models of a structure's format.

    Raises:
        ValueError: if its name ends as none's.
    """
    for end, name in STRUCTURES.items():
        if structure.name.endswith(end):
            return importlib.import_module(f"keras_diagwise.importers.{name}")
    raise ValueError(
        f"`structure` must be a file whose name ends in {' or '.join(STRUCTURES)}. "
        f"Received: structure={str(structure)!r}"
    )


def load(structure: Path, weights: Path, image_size: int | None) -> keras.Model:
    """The model of a structure and its weights.

    Args:
        structure: path of it.
        weights: path of them.
        image_size: pixels along each side, where the structure does not say.

    Raises:
        ValueError: if it can't be loaded.
    """
    module = format_of(structure)
    if image_size is None:
        return module.load(structure, weights)
    if "image_size" not in inspect.signature(module.load).parameters:
        raise ValueError(
            f"--image-size must be left out for {str(structure)!r}, which says it. "
            f"Received: {image_size}"
        )
    return module.load(structure, weights, image_size=image_size)


def structure_beside(weights: Path) -> Path:
    """The structure beside weights that are to be written, by their name.

    Raises:
        ValueError: if their name ends as no format's, or there is none.
    """
    reason = "the name of the weights does not say of which framework they are"
    for end, of_structure in WEIGHTS.items():
        name, count = re.subn(f"{end}$", of_structure, weights.name)
        found = weights.with_name(name)
        if count and found.is_file():
            return found
        if count:
            reason = f"there is no {str(found)!r}"
    raise ValueError(
        "--structure must name the file that the model was imported from, as "
        f"{reason}. Received: --to {weights}"
    )
