"""Lines that `keras-diagwise report` prints when it has written the page."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from keras_diagwise.durations import duration
from keras_diagwise.problem import PASS_NAMES
from keras_diagwise_cli.model_input import title
from keras_diagwise_cli.report.page import cant_be_measured, gain_of
from keras_diagwise_cli.terminal.console import console, printable
from keras_diagwise_cli.terminal.tables import numbers, plain_table, texts

ALL = "all passes"


def show(figures: dict, path: str) -> None:
    """Prints the totals, what is missing, and where the page is."""
    terminal = console()
    totals = figures["totals"]
    layers, measured = totals["layers"], totals["measured"]

    def say(line: str) -> None:
        terminal.print(Text(printable(line)), soft_wrap=True)

    say(
        f"{title(figures)}, batches of {figures['batch_size']}: {measured} of "
        f"{layers} layers measured for this machine"
    )
    if measured:
        terminal.print(totals_table(totals))
    for reason, count in cant_be_measured(figures["layers"]).items():
        say(f"Can't be measured: {count} ({reason})")
    if totals["missing"]:
        others = "the others" if measured else "them"
        say(f"To measure {others}: {figures['tune']}")
    say(f"Written to {path}")


def totals_table(totals: dict) -> Table:
    """Totals over all layers, a row for each pass."""
    table = plain_table(
        texts(""), *map(numbers, ("native", "chosen", "gain", "roofline"))
    )
    rows = {PASS_NAMES[name]: each for name, each in totals["passes"].items()}
    for name, each in {**rows, ALL: totals}.items():
        if each["seconds"] is not None:
            native, chosen, roofline = (
                each[key] for key in ("native_seconds", "seconds", "least")
            )
            table.add_row(
                name,
                duration(native),
                duration(chosen),
                gain_of(each),
                duration(roofline) if roofline else "-",
                style="bold" if name == ALL else "",
            )
    return table
