"""`keras-diagwise benchmark`: times a model's steps, stock against converted."""

from __future__ import annotations

from typing import Annotated

import typer

from keras_diagwise_cli.commands import app
from keras_diagwise_cli.errors import one_line_errors, user_errors
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.loading import load_package
from keras_diagwise_cli.model_input import (
    DtypePolicy,
    ImageSize,
    Import,
    JitCompile,
    ModelName,
    loaded,
)
from keras_diagwise_cli.options import AsJson, BatchSize, check_seconds
from keras_diagwise_cli.terminal.output import print_json
from keras_diagwise_cli.terminal.progress import Progress

EXAMPLES = examples(
    (
        "keras-diagwise benchmark MobileNetV2 --image-size 96 --batch-size 16",
        "a model of keras.applications",
    ),
    (
        "keras-diagwise benchmark model.keras --json > benchmark.json",
        "your own model, at the batch size that was tuned for",
    ),
)


@app.command("benchmark", epilog=EXAMPLES)
@one_line_errors
def benchmark(
    model: ModelName,
    batch_size: BatchSize = None,
    image_size: ImageSize = None,
    seconds: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            callback=check_seconds,
            help="How long to time training steps, and how long predictions.",
        ),
    ] = 10.0,
    dtype_policy: DtypePolicy = None,
    jit_compile: JitCompile = None,
    import_: Import = None,
    as_json: AsJson = False,
) -> None:
    """Time a model's training step and prediction, stock against converted.

    Inputs are random; training uses SGD at a small rate and the mean squared error,
    unless the model has its own train_step or compute_loss.

    The converted model runs what `tune` has found, or else the nearest it knows.
    """
    load_package()
    from keras_diagwise_cli.benchmark.figures import benchmark_figures
    from keras_diagwise_cli.benchmark.table import show

    with Progress() as progress, user_errors():
        with progress.phase("loading the model"):
            named = loaded(model, image_size, dtype_policy, jit_compile, import_)
        found = benchmark_figures(named, batch_size, seconds, progress.phase)
    figures = {"given": model, **found}
    if as_json:
        print_json(figures)
    else:
        show(figures)
