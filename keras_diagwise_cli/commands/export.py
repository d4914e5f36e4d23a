"""`keras-diagwise export`: writes a model's weights for the framework it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_diagwise_cli.commands import app
from keras_diagwise_cli.errors import one_line_errors, user_errors
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.loading import load_package
from keras_diagwise_cli.options import AsJson
from keras_diagwise_cli.terminal.output import print_outcome

EXAMPLES = examples(
    (
        "keras-diagwise export model.keras --to net.weights",
        "for Darknet, with net.cfg, which it was imported from, beside it",
    ),
    (
        "keras-diagwise export model.keras --to trained.weights --structure net.cfg",
        "the same under another name",
    ),
)


@app.command("export", epilog=EXAMPLES)
@one_line_errors
def export(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            exists=True,
            dir_okay=False,
            help="A .keras file that `import` wrote.",
        ),
    ],
    to: Annotated[
        Path, typer.Option("--to", metavar="WEIGHTS", help="The weights file to write.")
    ],
    structure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="The structure's file; by default the one beside WEIGHTS with its "
            "name, such as net.cfg for net.weights.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write an imported model's weights in the format of its own framework.

    It may have been trained and converted since. Its structure must be as imported.
    """
    load_package()
    from keras_diagwise.importers.formats import format_of, structure_beside
    from keras_diagwise.models.load import from_file

    with user_errors():
        source = structure or structure_beside(to)
        write = format_of(source).save
        write(from_file(model), source, to)
    size = to.stat().st_size
    print_outcome(as_json, f"{to}: {size:,} bytes", file=str(to), bytes=size)
