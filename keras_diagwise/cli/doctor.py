"""`keras-diagwise doctor`: diagnoses backend, device, store, tuner and algorithms."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Iterator

import rich.table
import typer
from rich.text import Text

from keras_diagwise._terminal import printable_lines, standard_console
from keras_diagwise.cli import findings
from keras_diagwise.cli.errors import UserError, one_line_errors
from keras_diagwise.cli.findings import Finding, worst
from keras_diagwise.cli.import_keras import import_keras
from keras_diagwise.cli.options import AsJson, Debug
from keras_diagwise.cli.progress import Progress

WIDTH = 80
STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def doctor(
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Look for what is wrong: backend, device, store, tuner, algorithms.

    Run it when something is not as expected, and paste its output into an issue.

    It prints no password of a URL, and ends with code 1 if it finds an error.
    """
    with one_line_errors(debug):
        with Progress() as progress:
            found = list(all_findings(progress, debug))
        if as_json:
            typer.echo(json.dumps(figures(found), indent=1))
        else:
            show(found)
        raise typer.Exit(worst(found) == "error")


def all_findings(progress: Progress, debug: bool) -> Iterator[Finding]:
    """Every finding, in the order shown."""
    yield findings.versions()
    try:
        with progress.phase("loading Keras"):
            import_keras()
    except UserError as error:
        if debug:
            raise
        yield findings.no_backend(error)
        return
    look = findings.found
    yield look("variables", findings.variables)
    yield look("backend", findings.backend)
    for name in ("on_miss", "precision"):
        yield look(name, functools.partial(findings.setting, name))
    stored = look("store", findings.store)
    yield stored
    if stored.values:  # else there is no store
        with progress.phase("reading decisions"):
            yield from findings.decisions()
    yield look("shipped", findings.shipped)
    with progress.phase("starting a child"):
        tuner = look("tuner", findings.tuner)
    yield tuner
    with progress.phase("computing", total=1) as advance:
        yield look("algorithms", findings.algorithms, tuner.state == "ok", advance)
    if tuner.state == "ok":
        with progress.phase("computing again, with freed memory kept"):
            yield look("memory", findings.memory)


def figures(found: list[Finding]) -> dict:
    """All findings in JSON's types."""
    return {
        "state": worst(found),
        "findings": [dataclasses.asdict(each) for each in found],
    }


def show(found: list[Finding]) -> None:
    """Prints the findings, at most 80 columns wide."""
    console = standard_console(highlight=False)
    console = standard_console(highlight=False, width=min(console.width, WIDTH))
    table = rich.table.Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for each in found:
        state = Text(each.state, STYLES[each.state])
        table.add_row(state, each.subject, Text(printable_lines(each.text)))
        if each.remedy:
            table.add_row("", "", Text(f"→ {printable_lines(each.remedy)}", "italic"))
    console.print(table, "", closing(found), sep="\n")
    for command in (each.command for each in found if each.command):
        console.print("", Text(command), sep="\n", soft_wrap=True)


def closing(found: list[Finding]) -> str:
    """Closing line: the counts of errors and warnings."""
    counts = Counter(each.state for each in found)
    parts = [
        f"{counts[state]} {state}{'s' if counts[state] > 1 else ''}"
        for state in ("error", "warning")
        if counts[state]
    ]
    return f"Found: {', '.join(parts)}." if parts else "All is well."
