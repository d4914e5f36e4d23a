"""The command line: `keras-diagwise`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from keras_diagwise.cli import (
    benchmark,
    decisions,
    demo,
    doctor,
    export_model,
    import_model,
    report,
    tune,
)
from keras_diagwise.cli.errors import INTERRUPTED, Commands
from keras_diagwise.cli.examples import examples

app = typer.Typer(
    cls=Commands,
    name="keras-diagwise",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog=examples(""),
)
app.command("demo", epilog=examples("demo"))(demo.demo)
app.command("tune", epilog=examples("tune"))(tune.tune)
app.command("benchmark", epilog=examples("benchmark"))(benchmark.benchmark)
app.command("report", epilog=examples("report"))(report.report)
app.add_typer(decisions.app)
app.command("import", epilog=examples("import"))(import_model.import_model)
app.command("export", epilog=examples("export"))(export_model.export_model)
app.command("doctor", epilog=examples("doctor"))(doctor.doctor)


def show_version(asked: bool) -> None:
    """Prints the package's version and exits."""
    if asked:
        from keras_diagwise.version import __version__

        typer.echo(f"keras-diagwise {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def keras_diagwise_command(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=show_version,
            is_eager=True,
            help="Show the version and leave.",
        ),
    ] = False,
) -> None:
    """Depthwise convolutions in Keras 3 by whichever algorithm is fastest."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run() -> None:
    """The console script `keras-diagwise`."""
    try:
        app(prog_name="keras-diagwise")
    except SystemExit as end:
        if end.code == INTERRUPTED:
            # After an interrupted step the interpreter's shutdown crashes in JAX
            # (seen in jaxlib 0.10.2).
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        raise
