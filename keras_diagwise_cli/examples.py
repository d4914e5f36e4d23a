"""Examples shown below a command's help."""

from __future__ import annotations


def examples(*lines: tuple[str, str]) -> str:
    """Examples in typer's markup.

    Args:
        *lines: command lines, each with a description.
    """
    parts = [f"{typed}\n[dim]{does}[/dim]" for typed, does in lines]
    return "\n\n".join(["[bold]Examples[/bold]", *parts])
