"""`keras-diagwise run`: runs Python with huge pages for what it allocates."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from keras_diagwise_cli import tunables
from keras_diagwise_cli.commands import app
from keras_diagwise_cli.examples import examples

EXAMPLES = examples(
    ("keras-diagwise run train.py --epochs 3", "instead of python train.py --epochs 3"),
    ("keras-diagwise run -m my_project.train", "a module, as with python -m"),
)


@app.command(
    "run",
    epilog=EXAMPLES,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def run(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="SCRIPT",
            help="The script, or another argument of Python's, and all that follows.",
            show_default=False,
        ),
    ],
) -> None:
    """Run a script with its memory in huge pages, which can speed up steps on CPUs.

    It sets GLIBC_TUNABLES, and then Python takes the place of this command.

    `keras-diagwise doctor` measures what this gains here.
    """
    environment = dict(os.environ)
    if tunables.has_tunables():
        value = tunables.with_tunables(tunables.HUGE_PAGES)
        environment[tunables.VARIABLE] = value
    else:
        typer.echo(f"Nothing is set: this takes {tunables.needed()}.", err=True)
    command = [sys.executable, *arguments]
    if os.name == "posix":
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, command, environment)
    raise typer.Exit(subprocess.run(command, env=environment, check=False).returncode)
