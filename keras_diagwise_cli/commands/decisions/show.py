"""`keras-diagwise decisions show`: shows what was measured of a problem."""

from __future__ import annotations

from typing import Annotated

import typer

from keras_diagwise_cli.commands.decisions import group, load_decisions, location_of
from keras_diagwise_cli.errors import UserError, one_line_errors, user_errors
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.options import AsJson

EXAMPLES = examples(
    (
        "keras-diagwise decisions show 8x28x28",
        "all problems with 8 images of 28×28 pixels",
    ),
    (
        "keras-diagwise decisions show e3727",
        "the problem whose digest starts with e3727",
    ),
)


@group.command("show", epilog=EXAMPLES)
@one_line_errors
def show(
    problem: Annotated[
        str,
        typer.Argument(
            metavar="PROBLEM",
            help="The start of its digest, or a part of its text, as `list` prints "
            "them; x stands for ×.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show the candidates of each pass: their times, or why they have none."""
    decisions = load_decisions()
    from keras_diagwise_cli.decisions import tables

    with user_errors():
        document = tables.matching(decisions.document(), problem)
    if not len(document):
        raise UserError(
            f"No decision in {location_of(decisions)} is on a problem that matches "
            f"{problem!r}. To list all: keras-diagwise decisions list"
        )
    if as_json:
        typer.echo(document.to_text(), nl=False)
    else:
        tables.show_candidates(document)
