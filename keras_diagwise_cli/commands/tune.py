"""`keras-diagwise tune`: measures the candidates for a model on this machine."""

from __future__ import annotations

import warnings
from typing import Annotated

import typer

from keras_diagwise_cli.commands import app
from keras_diagwise_cli.errors import (
    in_words_of_the_help,
    one_line_errors,
    user_errors,
)
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.keras_free import keras_free_module
from keras_diagwise_cli.loading import load_package
from keras_diagwise_cli.model_input import (
    DtypePolicy,
    ImageSize,
    Import,
    JitCompile,
    ModelName,
    loaded,
)
from keras_diagwise_cli.options import AsJson
from keras_diagwise_cli.terminal.console import console

EXAMPLES = examples(
    (
        "keras-diagwise tune MobileNetV2 --image-size 96 --batch-size 16",
        "a model of keras.applications",
    ),
    (
        "keras-diagwise tune model.keras --batch-size 32 --batch-size 64",
        "your own model, for two batch sizes",
    ),
    (
        "keras-diagwise tune model.keras --batch-size 32 --budget 5m",
        "stop after five minutes; run it again to continue",
    ),
    (
        "keras-diagwise tune model.keras --batch-size 32 --json > report.json",
        "the results as JSON",
    ),
)


def checked_budget(budget: str | None) -> str | None:
    """Validates a budget before Keras is loaded."""
    if budget is not None:
        try:
            keras_free_module("budget").standardize_budget(budget)
        except ValueError as error:
            text = in_words_of_the_help(error).removeprefix("--budget ")
            raise typer.BadParameter(text) from error
    return budget


@app.command("tune", epilog=EXAMPLES)
@one_line_errors
def tune(
    model: ModelName,
    batch_size: Annotated[
        list[int],
        typer.Option(
            min=1, metavar="N", help="Images per step; repeat it for several sizes."
        ),
    ],
    image_size: ImageSize = None,
    training: Annotated[
        bool,
        typer.Option(
            "--training/--inference",
            help="Measure all three passes, or only the forward pass.",
        ),
    ] = True,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            callback=checked_budget,
            help="Stop after 30s, 5m or 1h; run it again to continue.",
        ),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep/--no-keep",
            help="Fail if the results can't be stored, or go on without.",
        ),
    ] = True,
    dtype_policy: DtypePolicy = None,
    jit_compile: JitCompile = None,
    import_: Import = None,
    as_json: AsJson = False,
) -> None:
    """Measure the candidates for a model's layers here, and store the results.

    Converted models then run the fastest. What is already measured is skipped.

    Ctrl-C keeps what has been measured so far.
    """
    load_package()
    from keras_diagwise.models.target import NOTHING_TO_MEASURE
    from keras_diagwise.models.tune import measure

    with user_errors():
        # The report says so itself.
        warnings.filterwarnings("ignore", NOTHING_TO_MEASURE, UserWarning)
        report = measure(
            loaded(model, image_size, dtype_policy, jit_compile, import_),
            batch_size=batch_size,
            training=training,
            budget=budget,
            keep=keep,
            has_bar=True,
        )
    if as_json:
        typer.echo(report.to_json())
    else:
        console().print(report)
    if report.ended == "interrupted":
        raise KeyboardInterrupt
