"""Output of a command: one JSON document, or a line."""

from __future__ import annotations

import json

import typer


def print_json(figures: object) -> None:
    """Prints figures in JSON's types as one document."""
    typer.echo(json.dumps(figures, indent=1))


def print_outcome(as_json: bool, text: str, **figures: object) -> None:
    """Prints an outcome as text, or its figures as JSON."""
    if as_json:
        print_json(figures)
    else:
        typer.echo(text)
