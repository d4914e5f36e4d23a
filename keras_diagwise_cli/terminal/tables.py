"""Tables on a terminal: their look, their columns, and ratios in them."""

from __future__ import annotations

import rich.box
from rich.table import Column, Table


def plain_table(*columns: Column) -> Table:
    """A table with a line below its header, as narrow as possible."""
    return Table(*columns, box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False)


def texts(head: str) -> Column:
    """A column of texts, which fold on a narrow terminal."""
    return Column(head, overflow="fold")


def numbers(head: str) -> Column:
    """A column of numbers, aligned at the right."""
    return Column(head, justify="right", no_wrap=True)


def ratio(value: float | None) -> str:
    """A ratio of two times, to three digits; empty if unknown."""
    if not value:
        return ""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}×"
