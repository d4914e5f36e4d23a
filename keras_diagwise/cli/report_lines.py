"""Lines that `keras-diagwise report` prints when it has written the page."""

from __future__ import annotations

from rich.text import Text

from keras_diagwise._terminal import printable, standard_console
from keras_diagwise.cli.decision_tables import duration
from keras_diagwise.cli.demo_tables import plain_table
from keras_diagwise.cli.named_model import title
from keras_diagwise.cli.report_page import cant_be_measured, gain_of
from keras_diagwise.models.report import PASS_NAMES

ALL = "all passes"


def show(figures: dict, path: str) -> None:
    """Prints the totals, what is missing, and where the page is."""
    console = standard_console(highlight=False)
    totals = figures["totals"]
    layers, measured = totals["layers"], totals["measured"]

    def say(line: str) -> None:
        console.print(Text(printable(line)), soft_wrap=True)

    say(
        f"{title(figures)}, batches of {figures['batch_size']}: {measured} of "
        f"{layers} layers measured for this machine"
    )
    if measured:
        console.print(totals_table(totals))
    for reason, count in cant_be_measured(figures["layers"]).items():
        say(f"Can't be measured: {count}, {reason}")
    if totals["missing"]:
        others = "the others" if measured else "them"
        say(f"To measure {others}: {figures['tune']}")
    say(f"Written to {path}")


def totals_table(totals: dict):
    """Totals over all layers, a row for each pass."""
    table = plain_table()
    for head in ("", "native", "chosen", "gain", "roofline"):
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
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
