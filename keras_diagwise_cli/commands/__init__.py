"""The commands, one file each; a folder is a group of commands.

To add a command, add a file whose function is declared by `@app.command` and
`@one_line_errors`, which adds `--debug`; the file imports no Keras at its top. The
command comes last in the help, unless `ORDER` names the file. (`run` has no errors to
shorten: Python takes its place.)
"""

from __future__ import annotations

from typing import Annotated

import typer

from keras_diagwise_cli.discovery import import_commands
from keras_diagwise_cli.errors import Commands
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.keras_free import version

ORDER = (
    "demo",
    "tune",
    "benchmark",
    "report",
    "import_",
    "export",
    "run",
    "doctor",
)

EXAMPLES = examples(
    (
        "keras-diagwise demo",
        "train on scanned digits; about five minutes on two cores",
    ),
    (
        "keras-diagwise tune MobileNetV2 --image-size 96 --batch-size 16",
        "measure a model's layers on this machine, and store the results",
    ),
    (
        "keras-diagwise benchmark model.keras --batch-size 32",
        "time its training step and prediction, stock against converted",
    ),
    (
        "keras-diagwise report model.keras -o report.html",
        "write a page on a model: what each layer runs here, and why",
    ),
    ("keras-diagwise decisions list", "list what was measured on this machine"),
    (
        "keras-diagwise import net.cfg net.weights -o model.keras",
        "turn a Darknet model into a Keras model",
    ),
    (
        "keras-diagwise run train.py",
        "run a script with its memory in huge pages, for speed on a CPU",
    ),
    ("keras-diagwise doctor", "check the installation when something is wrong"),
    ("KERAS_BACKEND=torch keras-diagwise demo", "use another backend"),
)

EXIT_CODES = (
    "[bold]Exit codes[/bold]\n0: success. 1: `doctor` found an error, or an unexpected "
    "one occurred.\n2: an error that you can fix; one line says how. 130: interrupted."
)

app = typer.Typer(
    cls=Commands,
    name="keras-diagwise",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog=f"{EXAMPLES}\n\n{EXIT_CODES}",
)


def show_version(asked: bool) -> None:
    """Prints the package's version and exits."""
    if asked:
        typer.echo(f"keras-diagwise {version()}")
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
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Run the convolutions of Keras 3 models by the fastest algorithms here."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


import_commands(__name__, ORDER)
