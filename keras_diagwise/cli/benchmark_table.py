"""The table of `keras-diagwise benchmark`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from rich.table import Table
from rich.text import Text

from keras_diagwise._terminal import printable, standard_console
from keras_diagwise.cli.decision_tables import duration
from keras_diagwise.cli.demo_tables import plain_table
from keras_diagwise.cli.named_model import title
from keras_diagwise.planning.source import PlanSource

KINDS = {"training": "training step", "prediction": "prediction"}


def show(figures: dict) -> None:
    """Prints the times and their context."""
    console = standard_console(highlight=False)
    heading = f"{title(figures)}, batches of {figures['batch_size']}"
    console.print(Text(printable(heading), style="bold"))
    console.print(table(figures))
    for line in closing(figures):
        console.print(Text(printable(line)))


def table(figures: dict) -> Table:
    """A row for each kind of step, and one for its first step."""
    found = plain_table()
    found.add_column("")
    for head in ("stock", "converted", "gain", "95 % bounds"):
        found.add_column(head, justify="right")
    for kind, words in KINDS.items():
        each = figures[kind]
        found.add_row(
            f"{words}, median of {each['rounds']}",
            duration(each["stock"]),
            duration(each["converted"]),
            Text(f"{each['ratio']:.2f}×", "bold"),
            f"{each['at_least']:.2f}–{each['at_most']:.2f}",
        )
        found.add_row(
            "  first: trace, compile",
            duration(each["first_stock"]),
            duration(each["first_converted"]),
        )
    return found


def closing(figures: dict) -> Iterator[str]:
    """Lines below the table."""
    yield (
        "Largest difference of the predictions: "
        f"{figures['difference']:.1g} of their root mean square."
    )
    sources = Counter(each["rung"] for each in figures["layers"])
    counts = ", ".join(f"{count} by {source!r}" for source, count in sources.items())
    if counts:
        yield f"Where the plans of its layers come from: {counts}."
    else:
        yield "No layer of it can run by a plan."
    if sources and figures["runs_native_only"]:
        yield f"All of them run stock's own operations. {after_native(sources)}"
    here = figures["environment"]
    yield (
        f"On {here['device_name']}, {here['cores']} cores, {here['backend']} "
        f"({here['compiler_mode']})."
    )


def after_native(sources: Iterable[str]) -> str:
    """Reason why only stock's operations run, or the command that may change it."""
    if set(sources) <= {PlanSource.DECISION, PlanSource.LAYER}:
        return "Nothing that was measured is faster here."
    return "To measure what is faster: keras-diagwise tune"
