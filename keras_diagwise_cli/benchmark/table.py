"""The table of `keras-diagwise benchmark`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

from rich.table import Table
from rich.text import Text

from keras_diagwise.durations import duration
from keras_diagwise.planning.source import PlanSource
from keras_diagwise_cli.model_input import title
from keras_diagwise_cli.terminal.console import console, printable
from keras_diagwise_cli.terminal.tables import numbers, plain_table, ratio, texts

KINDS = {"training": "training step", "prediction": "prediction"}


def show(figures: dict) -> None:
    """Prints the times and their context."""
    terminal = console()
    heading = f"{title(figures)}, batches of {figures['batch_size']}"
    terminal.print(Text(printable(heading), style="bold"))
    terminal.print(table(figures))
    for line in closing(figures):
        terminal.print(Text(printable(line)))


def table(figures: dict) -> Table:
    """Two rows for each kind of step: its times, and those of its first."""
    found = times_table()
    for kind, words in KINDS.items():
        steps = figures[kind]
        add_times(found, words, steps)
        add_first(found, steps["first_stock"], steps["first_converted"])
    return found


def times_table() -> Table:
    """An empty table of times, stock against converted."""
    return plain_table(
        texts(""), *map(numbers, ("stock", "converted", "gain", "90 % interval"))
    )


def add_times(table: Table, label: str, steps: dict) -> None:
    """Adds the times of a kind of step.

    Args:
        table: a `times_table`.
        label: name of the kind.
        steps: `keras_diagwise.models.benchmark.Steps` in JSON's types.
    """
    table.add_row(
        f"{label}, median of {steps['rounds']}",
        duration(steps["stock"]),
        duration(steps["converted"]),
        Text(ratio(steps["ratio"]), "bold"),
        f"{steps['at_least']:.2f}–{steps['at_most']:.2f}",
    )


def add_first(table: Table, stock: float, converted: float) -> None:
    """Adds the seconds of the first step, below those of the others."""
    table.add_row("  first: trace and compile", duration(stock), duration(converted))


def closing(figures: dict) -> Iterator[str]:
    """Lines below the table."""
    difference = figures["difference"]
    if math.isfinite(difference):
        yield (
            "Largest difference between the predictions: "
            f"{difference:.1g} of their root mean square."
        )
    else:
        yield "The predictions differ: one model's hold NaN or infinite numbers."
    sources = Counter(each["rung"] for each in figures["layers"])
    if sources:
        counts = ", ".join(f"{name} ({count})" for name, count in sources.items())
        yield f"Sources of the layers' plans: {counts}."
    else:
        yield "None of its layers can run by a plan."
    if sources and figures["runs_native_only"]:
        yield f"All of them run the stock operations. {after_native(sources)}"
    here = figures["environment"]
    yield (
        f"Measured on {here['device_name']}, {here['cores']} cores, {here['backend']} "
        f"({here['compiler_mode']})."
    )


def after_native(sources: Iterable[str]) -> str:
    """Reason why only stock's operations run, or the command that may change it."""
    if set(sources) <= {PlanSource.DECISION, PlanSource.LAYER}:
        return "Nothing measured here is faster."
    return "To measure the alternatives: keras-diagwise tune"
