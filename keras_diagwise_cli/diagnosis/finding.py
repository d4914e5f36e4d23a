"""Findings of `keras-diagwise doctor`, and those that take no Keras."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from keras_diagwise_cli.keras_free import version
from keras_diagwise_cli.terminal.console import (
    console,
    counted,
    printable_lines,
    short,
)

MAX_LETTERS = 500
"""Longest message of an unexpected error that is shown."""

STATES = ("ok", "warning", "error")
STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}

PACKAGES = ("keras", "jax", "jaxlib", "tensorflow", "tensorflow-cpu", "torch")

WIDTH = 80


@dataclasses.dataclass(frozen=True)
class Finding:
    """A finding on one subject.

    Attributes:
        subject: one word.
        state: one of `STATES`.
        text: the finding.
        remedy: what the user can do about it, if anything.
        values: the finding in JSON's types.
        command: a shell command for the remedy, printed unwrapped.
    """

    subject: str
    state: str
    text: str
    remedy: str = ""
    values: Any = None
    command: str = ""


def worst(findings: Sequence[Finding]) -> str:
    """The worst state of all findings."""
    return max((each.state for each in findings), key=STATES.index)


def found(subject: str, look: Callable[..., Finding], *arguments: Any) -> Finding:
    """The finding of `look`; an exception becomes a finding with state `"error"`."""
    try:
        return look(*arguments)
    except Exception as error:
        text = short(f"{type(error).__name__}: {error}", MAX_LETTERS)
        return Finding(subject, "error", text)


def versions() -> Finding:
    """Versions of installed packages. Nothing is imported."""
    known = {"keras-diagwise": version(), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            known[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    text = ", ".join(f"{name} {number}" for name, number in known.items())
    return Finding("versions", "ok", f"{text}; {platform.platform()}", values=known)


def no_backend(error: Exception) -> Finding:
    """The finding if Keras can't be imported."""
    problem, _, remedy = str(error).partition(". ")
    return Finding("backend", "error", problem, f"{remedy}.")


def record(findings: Sequence[Finding]) -> dict:
    """All findings in JSON's types."""
    return {
        "state": worst(findings),
        "findings": [dataclasses.asdict(each) for each in findings],
    }


def show(findings: Sequence[Finding]) -> None:
    """Prints the findings, at most 80 columns wide."""
    terminal = console(max_width=WIDTH)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for each in findings:
        state = Text(each.state, STYLES[each.state])
        table.add_row(state, each.subject, Text(printable_lines(each.text)))
        if each.remedy:
            table.add_row("", "", Text(f"→ {printable_lines(each.remedy)}", "italic"))
    terminal.print(table, "", closing(findings), sep="\n")
    for command in (each.command for each in findings if each.command):
        terminal.print("", Text(command), sep="\n", soft_wrap=True)


def closing(findings: Sequence[Finding]) -> str:
    """Closing line: the counts of errors and warnings."""
    counts = Counter(each.state for each in findings)
    parts = [
        counted(counts[state], state) for state in ("error", "warning") if counts[state]
    ]
    return f"Found: {', '.join(parts)}." if parts else "All is well."
