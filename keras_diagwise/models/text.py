"""What a report prints, as a text."""

from __future__ import annotations

from rich.console import Console, ConsoleRenderable, RichCast

WIDTH = 110


def as_text(report: ConsoleRenderable | RichCast) -> str:
    """A report without colours, as wide as a page."""
    console = Console(width=WIDTH, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(report)
    return capture.get()
