"""Which format a file is of, by its name."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

STRUCTURES = {".cfg": "darknet"}
"""The module of each format, by the end of the name of a structure."""

WEIGHTS = {".weights": ".cfg"}
"""How a structure's name ends, by the end of its weights'."""


def format_of(structure: Path) -> ModuleType:
    """The module that loads and saves models of a structure's format.

    Raises:
        ValueError: if its name ends as none's.
    """
    name = end_of(structure, STRUCTURES, "structure")
    return importlib.import_module(f"keras_diagwise.importers.{STRUCTURES[name]}")


def structure_beside(weights: Path) -> Path:
    """The structure of the name of weights that are to be written beside it.

    Raises:
        ValueError: if their name ends as no format's, or there is none.
    """
    end = end_of(weights, WEIGHTS, "to")
    found = weights.with_name(weights.name.removesuffix(end) + WEIGHTS[end])
    if not found.is_file():
        raise ValueError(
            "--structure must name the file that the model was imported from, as "
            f"there is no {str(found)!r}. Received: to={str(weights)!r}"
        )
    return found


def end_of(path: Path, ends: dict[str, str], argument: str) -> str:
    found = [end for end in ends if path.name.endswith(end)]
    if not found:
        raise ValueError(
            f"`{argument}` must be a file whose name ends in {', '.join(ends)}. "
            f"Received: {argument}={str(path)!r}"
        )
    return found[0]
