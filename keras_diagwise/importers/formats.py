"""File formats, recognized by file name."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import keras

STRUCTURES = {".cfg": "darknet", "-symbol.json": "mxnet", ".prototxt": "caffe"}
"""Module of each format, by suffix of the structure's name."""

WEIGHTS = {
    r"\.weights": ".cfg",
    r"-\d{4}\.params": "-symbol.json",
    r"\.caffemodel": ".prototxt",
}
"""Suffix of a structure's name, by regular expression for its weights' suffix."""


def format_of(structure: Path) -> ModuleType:
    """The module that loads and saves models of a structure's format.

    Raises:
        ValueError: if no format has the suffix of its name.
    """
    for end, name in STRUCTURES.items():
        if structure.name.endswith(end):
            return importlib.import_module(f"keras_diagwise.importers.{name}")
    raise ValueError(
        f"`structure` must be a file whose name ends in {' or '.join(STRUCTURES)}. "
        f"Received: structure={str(structure)!r}"
    )


def load(structure: Path, weights: Path, image_size: int | None) -> keras.Model:
    """Loads the model of a structure and its weights.

    Args:
        structure: path of the structure.
        weights: path of the weights.
        image_size: pixels along each side, if the structure does not give it.

    Raises:
        ValueError: if the model can't be loaded.
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
    """The structure beside weights to write, found by their name.

    Raises:
        ValueError: if no format has their suffix, or there is no such structure.
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
