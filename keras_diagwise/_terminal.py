"""Terminal output: a console, untrusted text, and the time left of a task."""

from __future__ import annotations

import sys
from typing import Any, TextIO

import rich.progress
from rich.console import Console, ConsoleRenderable, RichCast
from rich.text import Text

WIDTH = 110
"""Columns of a report rendered as text."""

IN_ASCII = str.maketrans({"→": ">", "×": "x", "…": "~", "µ": "u", "−": "-"})
"""One column each, so that tables stay aligned."""


class Encodable:
    """A wrapper of a stream to which any text can be written: characters that the
    encoding lacks are replaced. All else is the stream's.

    Args:
        stream: the stream, whose encoding may be ASCII or a code page.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes `text`, replacing characters that the encoding lacks."""
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
    """A console on the current `sys.stdout` or `sys.stderr`.

    Args:
        stderr: whether to use `sys.stderr`.
        **settings: arguments of rich's `Console`.
    """
    stream = sys.stderr if stderr else sys.stdout
    file: Any = stream and Encodable(stream)
    return Console(file=file, **settings)


def as_text(report: ConsoleRenderable | RichCast) -> str:
    """A report as text without colours, `WIDTH` columns wide."""
    plain = Console(width=WIDTH, force_terminal=False, color_system=None)
    with plain.capture() as capture:
        plain.print(report)
    return capture.get()


def printable(text: str) -> str:
    """`text` made safe for a terminal, since documents are untrusted."""
    return "".join(c if c.isprintable() else "�" for c in text)


def printable_lines(text: str) -> str:
    """`printable` for each line of `text`."""
    return "\n".join(map(printable, text.split("\n")))


def short(text: str, letters: int) -> str:
    """Untrusted text on one printable line, truncated to `letters` characters."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= letters else f"{text[:letters]}…"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun, such as `1 pass` and `2 passes`.

    Args:
        number: the number.
        noun: the singular.
        plural: the plural; with an `s` if not given.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


class TimeLeftColumn(rich.progress.ProgressColumn):
    """The time left, or nothing while it is unknown.

    The pace is averaged since the task's start, and a step that takes longer than those
    before slows it down: rich's own estimate stands still between steps.
    """

    max_refresh = 0.5

    def render(self, task: rich.progress.Task) -> Text:
        if not (task.total and task.completed and task.elapsed) or task.finished:
            return Text()
        left = task.elapsed * (task.total - task.completed) / task.completed
        minutes, seconds = divmod(round(left), 60)
        return Text(f"{minutes}:{seconds:02} left", style="progress.remaining")
