"""`keras-diagwise report`: writes a page on a model on this machine."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from keras_diagwise_cli.commands import app
from keras_diagwise_cli.errors import UserError, one_line_errors, user_errors
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.loading import load_package
from keras_diagwise_cli.model_input import (
    DtypePolicy,
    ImageSize,
    Import,
    JitCompile,
    ModelName,
    converted,
    loaded,
)
from keras_diagwise_cli.options import AsJson, BatchSize
from keras_diagwise_cli.terminal.output import print_json

EXAMPLES = examples(
    (
        "keras-diagwise report model.keras -o report.html",
        "after `tune`: a page to open in a browser, or to send to someone",
    ),
    (
        "keras-diagwise report MobileNetV2 --image-size 96 --batch-size 16 "
        "-o report.html",
        "a model of keras.applications",
    ),
    ("keras-diagwise report model.keras --json > report.json", "the figures as JSON"),
)


@app.command("report", epilog=EXAMPLES)
@one_line_errors
def report(
    model: ModelName,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The page to write; an existing file is replaced.",
        ),
    ] = None,
    batch_size: BatchSize = None,
    image_size: ImageSize = None,
    dtype_policy: DtypePolicy = None,
    jit_compile: JitCompile = None,
    import_: Import = None,
    as_json: AsJson = False,
) -> None:
    """Write a page on a model's layers: what each one runs on this machine, and why.

    Nothing is measured; the page shows what `tune` has found.

    It is a single file, which loads nothing from the network.
    """
    if output is None and not as_json:
        raise UserError(
            "A page needs a file. Pass -o report.html, or --json to print the figures"
        )
    load_package()
    from keras_diagwise_cli.report.figures import report_figures
    from keras_diagwise_cli.report.lines import show
    from keras_diagwise_cli.report.page import write_page

    with user_errors():
        target = None if output is None else target_of(output, model)
        named = loaded(model, image_size, dtype_policy, jit_compile, import_)
        found = report_figures(converted(named), batch_size)
        options = {
            "--image-size": image_size,
            "--dtype-policy": dtype_policy,
            "--batch-size": found["batch_size"],
        }
        command = tune_command(model, options, jit_compile, import_)
        figures = {"given": model, "tune": command, **found}
        if target is not None:
            write_page(target, figures)
    if as_json:
        print_json(figures)
    else:
        show(figures, str(output))


def target_of(output: Path, model: str) -> str:
    """The absolute path of the page.

    Raises:
        UserError: if the page would replace the model.
        ValueError: if no file can be written there.
    """
    from keras_diagwise.models.decisions import exportable

    target = exportable(output)
    if target == os.path.realpath(model):
        raise UserError(
            "The page would replace the model. Give another file than "
            f"{output}, such as -o report.html"
        )
    return target


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
