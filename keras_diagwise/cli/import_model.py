"""`keras-diagwise import`: a model of Darknet, MXNet or Caffe as a `.keras` file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from keras_diagwise.cli.errors import UserError, one_line_errors, user_errors
from keras_diagwise.cli.import_keras import import_keras
from keras_diagwise.cli.options import AsJson, Debug
from keras_diagwise.cli.progress import Progress


def import_model(
    structure: Annotated[
        Path,
        typer.Argument(
            metavar="STRUCTURE",
            exists=True,
            dir_okay=False,
            help="A .cfg of Darknet, -symbol.json of MXNet or .prototxt of Caffe.",
        ),
    ],
    weights: Annotated[
        Path,
        typer.Argument(
            metavar="WEIGHTS",
            exists=True,
            dir_okay=False,
            help="The weights for it.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The .keras file to write."
        ),
    ],
    convert: Annotated[
        bool,
        typer.Option("--convert", help="Make the layers that have plans run by them."),
    ] = False,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            help="Height and width of a model of MXNet's images; 224, if not given.",
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a Keras model of a model of another framework, with its weights.

    `export` is the way back.
    """
    with one_line_errors(debug):
        check_output(output)
        with Progress() as progress, progress.phase("loading Keras"):
            import_keras()
        with user_errors(debug):
            from keras_diagwise.cli.named_model import converted
            from keras_diagwise.importers.formats import load

            model = load(structure, weights, image_size)
            model = converted(model) if convert else model
            model.save(output)
        figures = {
            "file": str(output),
            "layers": len(model.layers),
            "parameters": model.count_params(),
        }
        text = "{file}: {layers} layers, {parameters:,} parameters".format(**figures)
        typer.echo(json.dumps(figures, indent=1) if as_json else text)


def check_output(output: Path) -> None:
    """Checks the output's suffix before the model is loaded.

    Raises:
        UserError: if Keras would not write such a file.
    """
    if output.suffix != ".keras":
        raise UserError(
            f"--output must be a file that ends in .keras. Received: {str(output)!r}"
        )
