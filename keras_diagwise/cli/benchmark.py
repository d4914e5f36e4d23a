"""`keras-diagwise benchmark`: a model's steps, stock against converted."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from keras_diagwise.cli.errors import one_line_errors, user_errors
from keras_diagwise.cli.import_keras import import_keras
from keras_diagwise.cli.named_model import (
    DtypePolicy,
    ImageSize,
    Import,
    JitCompile,
    ModelName,
    converted,
    loaded,
)
from keras_diagwise.cli.options import AsJson, BatchSize, Debug
from keras_diagwise.cli.progress import Progress


def benchmark(
    model: ModelName,
    batch_size: BatchSize = None,
    image_size: ImageSize = None,
    seconds: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="How long training steps, and then predictions, are timed.",
        ),
    ] = 10.0,
    dtype_policy: DtypePolicy = None,
    jit_compile: JitCompile = None,
    import_: Import = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Time a model's training step and prediction, stock and converted in turn.

    The inputs are random, the optimizer a small SGD, the loss the mean square.

    The converted model runs what `tune` found, or what comes nearest to it.
    """
    with one_line_errors(debug):
        with Progress() as progress:
            with progress.phase("loading Keras"):
                import_keras()
            with user_errors(debug):
                with progress.phase("loading the model"):
                    named = loaded(
                        model, image_size, dtype_policy, jit_compile, import_
                    )
                figures = {
                    "given": model,
                    **measured(named, batch_size, seconds, progress),
                }
        if as_json:
            typer.echo(json.dumps(figures, indent=1))
        else:
            from keras_diagwise.cli.benchmark_table import show

            show(figures)


def measured(model, batch_size: int | None, seconds: float, progress: Progress) -> dict:
    """The benchmark's figures, in JSON's types."""
    from keras_diagwise.cli.batch_size import batch_size_of
    from keras_diagwise.cli.place import place
    from keras_diagwise.models.benchmark import benchmark
    from keras_diagwise.models.environment import environment_of
    from keras_diagwise.models.summary import summary

    model = converted(model)
    size, where_from = batch_size_of(model, batch_size)
    plans = summary(model, batch_size=size)
    found = benchmark(model, batch_size=size, seconds=seconds, phase=progress.phase)
    return {
        "model": model.name,
        "batch_size": size,
        "batch_size_is": where_from,
        "environment": place(environment_of(model)),
        **found.to_dict(),
        "layers": [
            {
                "path": each.path,
                "plan": None if each.plan is None else each.plan.to_config(),
                "rung": each.rung,
            }
            for each in plans
        ],
        "runs_native_only": all(
            each.plan is None or each.plan.is_native for each in plans
        ),
    }
