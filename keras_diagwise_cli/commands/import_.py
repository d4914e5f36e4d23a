"""`keras-diagwise import`: a model of Darknet, MXNet or Caffe as a `.keras` file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_diagwise_cli.commands import app
from keras_diagwise_cli.errors import UserError, one_line_errors, user_errors
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.loading import load_package
from keras_diagwise_cli.model_input import converted
from keras_diagwise_cli.options import AsJson
from keras_diagwise_cli.terminal.output import print_outcome

EXAMPLES = examples(
    (
        "keras-diagwise import net.cfg net.weights -o model.keras",
        "a Darknet model, for keras.models.load_model",
    ),
    (
        "keras-diagwise import net.cfg net.weights -o model.keras --convert",
        "the same model, converted",
    ),
    (
        "keras-diagwise import net-symbol.json net-0000.params --image-size 96 "
        "-o model.keras",
        "an MXNet classifier",
    ),
)


@app.command("import", epilog=EXAMPLES)
@one_line_errors
def import_(
    structure: Annotated[
        Path,
        typer.Argument(
            metavar="STRUCTURE",
            exists=True,
            dir_okay=False,
            help="A Darknet .cfg, MXNet -symbol.json or Caffe .prototxt file.",
        ),
    ],
    weights: Annotated[
        Path,
        typer.Argument(
            metavar="WEIGHTS", exists=True, dir_okay=False, help="Its weights file."
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
        typer.Option("--convert", help="Convert the model, so that it runs by plans."),
    ] = False,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            help="Height and width of an MXNet model's images; 224 by default.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Import a Darknet, MXNet or Caffe model, with its weights, as a Keras model.

    `export` writes its weights back.
    """
    check_output(output)
    load_package()
    from keras_diagwise.importers.formats import load

    with user_errors():
        model = load(structure, weights, image_size)
        model = converted(model) if convert else model
        model.save(output)
    layers, parameters = len(model.layers), model.count_params()
    print_outcome(
        as_json,
        f"{output}: {layers} layers, {parameters:,} parameters",
        file=str(output),
        layers=layers,
        parameters=parameters,
    )


def check_output(output: Path) -> None:
    """Checks the output's suffix before the model is loaded.

    Raises:
        UserError: if Keras would not write such a file.
    """
    if output.suffix != ".keras":
        raise UserError(
            f"--output must be a file that ends in .keras. Received: {str(output)!r}"
        )
