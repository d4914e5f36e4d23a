"""What is printed: a console, texts that come from anywhere, and the time left."""

from __future__ import annotations

import sys
from typing import Any, TextIO

import rich.progress
from rich.console import Console, ConsoleRenderable, RichCast
from rich.text import Text

WIDTH = 110
"""Columns of a report that is made a text."""

IN_ASCII = str.maketrans({"→": ">", "×": "x", "…": "~", "µ": "u", "−": "-"})
"""Of equal widths, so that tables stay tables."""


class Encodable:
    """A stream to which every text can be written: what its encoding does not have is
    put in other characters. Else it is the stream.

    Args:
        stream: whose encoding may be ASCII or a code page.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text, as far as the stream has its characters."""
        encoding = self._stream.encoding or "utf-8"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            plain = text.translate(IN_ASCII).encode(encoding, errors="replace")
            text = plain.decode(encoding)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def standard_console(stderr: bool = False, **settings) -> Console:
    """A console on a standard stream of now.

    Args:
        stderr: on which.
        **settings: rich's.
    """
    stream = sys.stderr if stderr else sys.stdout
    file: Any = stream and Encodable(stream)
    return Console(file=file, **settings)


def as_text(report: ConsoleRenderable | RichCast) -> str:
    """A report without colours, as wide as a page."""
    plain = Console(width=WIDTH, force_terminal=False, color_system=None)
    with plain.capture() as capture:
        plain.print(report)
    return capture.get()


def printable(text: str) -> str:
    """A text that can do nothing to a terminal: documents come from anywhere."""
    return "".join(c if c.isprintable() else "�" for c in text)


def printable_lines(text: str) -> str:
    """The same of a text of several lines."""
    return "\n".join(map(printable, text.split("\n")))


class TimeLeftColumn(rich.progress.ProgressColumn):
    """The time left, in words; nothing as long as it can't be told.

    The pace is that since the task's start, and a step that takes longer than those
    before slows it down: rich's own estimate stands still from step to step.
    """

    max_refresh = 0.5

    def render(self, task: rich.progress.Task) -> Text:
        if not (task.total and task.completed and task.elapsed) or task.finished:
            return Text()
        left = task.elapsed * (task.total - task.completed) / task.completed
        minutes, seconds = divmod(round(left), 60)
        return Text(f"{minutes}:{seconds:02} left", style="progress.remaining")
