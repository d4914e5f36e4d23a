"""`keras-diagwise decisions list`: lists all decisions."""

from __future__ import annotations

from keras_diagwise_cli.commands.decisions import group, load_decisions, location_of
from keras_diagwise_cli.errors import one_line_errors, user_errors
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.options import AsJson
from keras_diagwise_cli.terminal.output import print_json

EXAMPLES = examples(
    (
        "keras-diagwise decisions list",
        "by environment: each problem's plan, its gain, and when it was measured",
    ),
    ("keras-diagwise decisions list --json", "the same as JSON"),
)


@group.command("list", epilog=EXAMPLES)
@one_line_errors
def list_(as_json: AsJson = False) -> None:
    """List all decisions, in one table per environment."""
    decisions = load_decisions()
    from keras_diagwise_cli.decisions import tables

    with user_errors():
        document, location = decisions.document(), location_of(decisions)
    if as_json:
        print_json(tables.figures(document))
    else:
        tables.show_all(document, location)
