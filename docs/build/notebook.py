"""Makes a notebook from the page of the quick start."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

PARTS = re.compile(r"^```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```$", re.M | re.S)
LINKS = re.compile(r"\[([^\]]+)\]\((?!http)[^)]+\)")
NOT_IN_A_NOTEBOOK = ("pip install", "keras-diagwise demo", "export ")

FIRST = """\
# %pip install "keras-diagwise[jax]"
import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # or tensorflow, torch
"""


def notebook_of(page: Path) -> str:
    """A page as a notebook without outputs: text, Python code, and commands.

    Commands that install or name a backend are replaced by the first cell.
    """
    text = page.read_text(encoding="utf-8")
    heading, text = text.split("\n", 1)
    text = text[text.index("## Convert a model") :]
    cells = [("markdown", heading), ("code", FIRST), *cells_of(text)]
    cells = [(kind, source) for kind, source in cells if source.strip()]
    values = {
        "cells": [cell(i, *each) for i, each in enumerate(cells)],
        "metadata": {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def cells_of(text: str) -> Iterator[tuple[str, str]]:
    """Kind and source of each cell."""
    end = 0
    for found in PARTS.finditer(text):
        yield "markdown", LINKS.sub(r"\1", text[end : found.start()])
        end = found.end()
        code = found["code"]
        if found["language"] == "shell":
            lines = code.splitlines()
            code = "".join(
                f"!{line}\n" for line in lines if not line.startswith(NOT_IN_A_NOTEBOOK)
            )
        yield "code", code
    yield "markdown", LINKS.sub(r"\1", text[end:])


def cell(number: int, kind: str, source: str) -> dict:
    """A cell in the notebook format."""
    more = {"execution_count": None, "outputs": []} if kind == "code" else {}
    lines = source.strip().splitlines(keepends=True)
    cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": lines}
    return {**cell, **more}
