"""A console, and text made safe for it: those of `keras_diagwise`, without Keras."""

from __future__ import annotations

from rich.console import Console

from keras_diagwise_cli.keras_free import keras_free_module

_terminal = keras_free_module("_terminal")

TimeLeftColumn = _terminal.TimeLeftColumn
counted = _terminal.counted
printable = _terminal.printable
printable_lines = _terminal.printable_lines
short = _terminal.short


def console(max_width: int | None = None, stderr: bool = False) -> Console:
    """A console on the current `sys.stdout` or `sys.stderr`.

    Args:
        max_width: limit of its columns.
        stderr: whether to use `sys.stderr`.
    """
    found = _terminal.standard_console(stderr=stderr, highlight=False)
    if max_width is not None:
        found.width = min(found.width, max_width)
    return found
