"""Output of a command: one JSON document, or a line."""

from __future__ import annotations

import json
import operator

import msgspec
import typer


def print_json(figures: object) -> None:
    """Prints figures in JSON's types as one document; what JSON can't represent, NaN
    and infinity, as null."""
    encoded = msgspec.json.encode(figures, enc_hook=operator.methodcaller("item"))
    typer.echo(json.dumps(msgspec.json.decode(encoded), indent=1))


def print_outcome(as_json: bool, text: str, **figures: object) -> None:
    """Prints an outcome as text, or its figures as JSON."""
    if as_json:
        print_json(figures)
    else:
        typer.echo(text)
