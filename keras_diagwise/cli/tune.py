"""`keras-diagwise tune`: measures the candidates for a model on this machine."""

from __future__ import annotations

import warnings
from typing import Annotated

import typer

from keras_diagwise._terminal import standard_console
from keras_diagwise.budget import standardize_budget
from keras_diagwise.cli.errors import in_words_of_the_help, one_line_errors, user_errors
from keras_diagwise.cli.import_keras import import_keras
from keras_diagwise.cli.named_model import (
    DtypePolicy,
    ImageSize,
    Import,
    JitCompile,
    ModelName,
    loaded,
)
from keras_diagwise.cli.options import AsJson, Debug
from keras_diagwise.cli.progress import Progress


def checked_budget(budget: str | None) -> str | None:
    """Validates a budget before Keras is loaded."""
    try:
        standardize_budget(budget)
    except ValueError as error:
        text = in_words_of_the_help(str(error)).removeprefix("--budget ")
        raise typer.BadParameter(text) from error
    return budget


def tune(
    model: ModelName,
    batch_size: Annotated[
        list[int],
        typer.Option(
            min=1, metavar="N", help="Images in a step; give it again for another."
        ),
    ],
    image_size: ImageSize = None,
    training: Annotated[
        bool,
        typer.Option(
            "--training/--inference", help="Decide all passes, or the forward pass."
        ),
    ] = True,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            callback=checked_budget,
            help="Stop after 30s, 5m or 1h; run it again to go on.",
        ),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep/--no-keep", help="Fail if the decisions can't be kept, or not."
        ),
    ] = True,
    dtype_policy: DtypePolicy = None,
    jit_compile: JitCompile = None,
    import_: Import = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure, on this machine, what each layer of a model needs, and keep it.

    Converted models run by it from then on. What is known is not measured again.

    Ctrl-C keeps what was measured until then.
    """
    with one_line_errors(debug):
        with Progress() as progress, progress.phase("loading Keras"):
            import_keras()
        with user_errors(debug):
            from keras_diagwise.models.tune import NOTHING_TO_MEASURE, measure

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
            standard_console().print(report)
        if report.ended == "interrupted":
            raise KeyboardInterrupt
