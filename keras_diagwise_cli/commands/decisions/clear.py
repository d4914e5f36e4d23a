"""`keras-diagwise decisions clear`: removes all decisions."""

from __future__ import annotations

from typing import Annotated

import typer

from keras_diagwise_cli.commands.decisions import (
    group,
    load_decisions,
    location_of,
)
from keras_diagwise_cli.errors import INTERRUPTED, end, one_line_errors, user_errors
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.options import AsJson
from keras_diagwise_cli.terminal.console import counted
from keras_diagwise_cli.terminal.output import print_outcome

EXAMPLES = examples(
    (
        "keras-diagwise decisions clear",
        "asks first; decisions shipped with the package stay",
    ),
    ("keras-diagwise decisions clear --yes", "does not ask"),
)


@group.command("clear", epilog=EXAMPLES)
@one_line_errors
def clear(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove all decisions from this machine."""
    decisions = load_decisions()
    from keras_diagwise.ops import dispatcher

    with user_errors():
        count, location = dispatcher.store.count(), location_of(decisions)
        question = f"Remove {counted(count, 'decision')} from {location}?"
        if count and not yes and not confirmed(question, as_json):
            end("nothing was removed; --yes removes without asking", INTERRUPTED)
        removed = decisions.clear()
    text = f"{counted(removed, 'decision')} removed from {location}"
    print_outcome(as_json, text, removed=removed, location=location)


def confirmed(question: str, as_json: bool) -> bool:
    """Whether the user confirms; asks on stderr if stdout is for JSON."""
    try:
        return typer.confirm(question, err=as_json)
    except typer.Abort:  # nobody to answer
        typer.echo(err=True)
        return False
