"""`keras-diagwise decisions import`: adds the decisions of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_diagwise_cli.commands.decisions import (
    group,
    load_decisions,
    location_of,
)
from keras_diagwise_cli.errors import one_line_errors, user_errors
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.options import AsJson
from keras_diagwise_cli.terminal.console import counted
from keras_diagwise_cli.terminal.output import print_outcome

EXAMPLES = examples(
    (
        "keras-diagwise decisions import decisions.json",
        "your own measurements stay, unless the file's are more complete or later",
    ),
)


@group.command("import", epilog=EXAMPLES)
@one_line_errors
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A file that `export` wrote.",
        ),
    ],
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Verify every candidate here first; one that fails is not used.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add the decisions of a file to those on this machine."""
    decisions = load_decisions()
    with user_errors():
        changed = decisions.import_(file, verify=verify)
        location = location_of(decisions)
    text = f"{counted(changed, 'decision')} new or changed in {location}"
    print_outcome(as_json, text, changed=changed, location=location)
