"""Options shared by several commands."""

from __future__ import annotations

import math
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the full traceback of an error.")
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Images per step; by default the size that was tuned for, or else 32.",
    ),
]


def check_seconds(seconds: float) -> float:
    """`seconds`, if finite."""
    if not math.isfinite(seconds):
        raise typer.BadParameter("must be a finite number of seconds")
    return seconds
