"""`keras-diagwise decisions export`: writes all decisions to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_diagwise_cli.commands.decisions import group, load_decisions
from keras_diagwise_cli.errors import one_line_errors, user_errors
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.options import AsJson
from keras_diagwise_cli.terminal.console import counted
from keras_diagwise_cli.terminal.output import print_outcome

EXAMPLES = examples(
    (
        "keras-diagwise decisions export decisions.json",
        "write them to a file, for machines of the same kind",
    ),
)


@group.command("export", epilog=EXAMPLES)
@one_line_errors
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    as_json: AsJson = False,
) -> None:
    """Write all decisions to one JSON file."""
    decisions = load_decisions()
    with user_errors():
        count = decisions.export(file)
    text = f"{counted(count, 'decision')} written to {file}"
    print_outcome(as_json, text, written=count, file=str(file))
