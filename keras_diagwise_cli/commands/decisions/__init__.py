"""`keras-diagwise decisions`: lists, shares and clears the decisions measured here."""

from __future__ import annotations

from typing import Any

import typer

from keras_diagwise_cli.commands import app
from keras_diagwise_cli.discovery import import_commands
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.loading import load_package

ORDER = ("list_", "show", "export", "contribute", "import_", "path", "clear")

EXAMPLES = examples(
    ("keras-diagwise decisions list", "list what was measured on this machine"),
    (
        "keras-diagwise decisions export decisions.json",
        "write them to a file, for machines of the same kind",
    ),
)

group = typer.Typer(
    name="decisions",
    rich_markup_mode="rich",
    invoke_without_command=True,
    epilog=EXAMPLES,
)
app.add_typer(group)


@group.callback()
def decisions_command(context: typer.Context) -> None:
    """List, share and clear the decisions measured on this machine."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def load_decisions() -> Any:
    """`keras_diagwise.decisions`, after the package is loaded."""
    load_package()
    from keras_diagwise.models.decisions import decisions

    return decisions


def location_of(decisions: Any) -> str:
    """Where the decisions are kept, without secrets."""
    from keras_diagwise.storage.locations import shown

    return shown(decisions.location)


import_commands(__name__, ORDER)
