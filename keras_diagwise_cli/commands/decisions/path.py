"""`keras-diagwise decisions path`: prints where decisions are kept."""

from __future__ import annotations

from keras_diagwise_cli.commands.decisions import group
from keras_diagwise_cli.errors import one_line_errors, user_errors
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.keras_free import keras_free_module
from keras_diagwise_cli.options import AsJson
from keras_diagwise_cli.terminal.output import print_outcome

EXAMPLES = examples(("keras-diagwise decisions path", "a folder, or a URL"))


@group.command("path", epilog=EXAMPLES)
@one_line_errors
def path(as_json: AsJson = False) -> None:
    """Print where decisions are kept."""
    locations = keras_free_module("storage/locations")
    with user_errors():
        location = locations.shown(locations.standardize_location(None))
    print_outcome(as_json, location, location=location)
