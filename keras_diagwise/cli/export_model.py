"""`keras-diagwise export`: writes a model's weights for the framework it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from keras_diagwise.cli.errors import one_line_errors, user_errors
from keras_diagwise.cli.import_keras import import_keras
from keras_diagwise.cli.options import AsJson, Debug
from keras_diagwise.cli.progress import Progress


def export_model(
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
        Path, typer.Option("--to", metavar="WEIGHTS", help="The file to write.")
    ],
    structure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="What the model was imported from; that of the weights' name beside "
            "them, such as net.cfg for net.weights, if not given.",
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the weights of a model as the framework reads them that it came from.

    Trained, converted or not. Its structure stays as it was imported.
    """
    with one_line_errors(debug):
        with Progress() as progress, progress.phase("loading Keras"):
            import_keras()
        with user_errors(debug):
            from keras_diagwise.importers.formats import format_of, structure_beside
            from keras_diagwise.models.load import from_file

            source = structure or structure_beside(to)
            write = format_of(source).save
            write(from_file(model), source, to)
        figures = {"file": str(to), "bytes": to.stat().st_size}
        text = "{file}: {bytes:,} bytes".format(**figures)
        typer.echo(json.dumps(figures, indent=1) if as_json else text)
