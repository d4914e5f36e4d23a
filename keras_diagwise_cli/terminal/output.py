"""Output of a command: one JSON document, or a line."""

from __future__ import annotations

import json
import math
from typing import Any

import typer


def print_json(figures: object) -> None:
    """Prints figures in JSON's types as one document."""
    typer.echo(json.dumps(finite(figures), indent=1, allow_nan=False))


def finite(figures: Any) -> Any:
    """Figures in JSON's types, with `None` for what JSON can't represent, NaN and
    infinity."""
    if isinstance(figures, dict):
        return {name: finite(each) for name, each in figures.items()}
    if isinstance(figures, list | tuple):
        return [finite(each) for each in figures]
    if isinstance(figures, float) and not math.isfinite(figures):
        return None
    return figures


def print_outcome(as_json: bool, text: str, **figures: object) -> None:
    """Prints an outcome as text, or its figures as JSON."""
    if as_json:
        print_json(figures)
    else:
        typer.echo(text)
