"""`keras-diagwise report`: a page about a model on this machine."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from keras_diagwise.cli.errors import UserError, one_line_errors, user_errors
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


def report(
    model: ModelName,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The page to write; what is there is replaced.",
        ),
    ] = None,
    batch_size: BatchSize = None,
    image_size: ImageSize = None,
    dtype_policy: DtypePolicy = None,
    jit_compile: JitCompile = None,
    import_: Import = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a page about a model's layers on this machine: what each runs, and why.

    Nothing is measured: the page shows what `tune` found.

    It is one file that needs no network.
    """
    with one_line_errors(debug):
        if output is None and not as_json:
            raise UserError(
                "The page needs a file to go to. Give one with -o report.html, or "
                "--json to print the figures."
            )
        with Progress() as progress, progress.phase("loading Keras"):
            import_keras()
        with user_errors(debug):
            from keras_diagwise.cli.report_figures import report_figures
            from keras_diagwise.models.decisions import exportable

            target = None if output is None else exportable(output)
            if target is not None and target == os.path.realpath(model):
                raise UserError(
                    f"The page would replace the model. Give it another file than "
                    f"{output}, such as -o report.html"
                )
            named = loaded(model, image_size, dtype_policy, jit_compile, import_)
            figures = report_figures(converted(named), batch_size)
            options = {
                "--image-size": image_size,
                "--dtype-policy": dtype_policy,
                "--batch-size": figures["batch_size"],
            }
            figures = {
                "given": model,
                "tune": tune_command(model, options, jit_compile, import_),
                **figures,
            }
            if target is not None:
                write(target, figures)
        if as_json:
            typer.echo(json.dumps(figures, indent=1))
        else:
            from keras_diagwise.cli.report_lines import show

            show(figures, str(output))


def write(target: str, figures: dict) -> None:
    """Writes the page atomically."""
    from keras_diagwise.cli.report_page import report_page
    from keras_diagwise.storage.folders import replacement

    with replacement(target, report_page(figures).encode()) as replace:
        replace()


def tune_command(
    model: str,
    options: dict,
    jit_compile: bool | None,
    modules: Iterable[str] | None = None,
) -> str:
    """The command that tunes the report's model, to paste into a shell."""
    words = ["keras-diagwise", "tune", model]
    for name, value in options.items():
        words += [] if value is None else [name, str(value)]
    if jit_compile is not None:
        words.append("--jit-compile" if jit_compile else "--no-jit-compile")
    for module in modules or ():
        words += ["--import", module]
    return shlex.join(words)
