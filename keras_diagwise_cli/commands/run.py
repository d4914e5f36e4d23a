"""`keras-diagwise run`: runs Python with huge pages for what it allocates."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from keras_diagwise_cli import tunables
from keras_diagwise_cli.commands import app
from keras_diagwise_cli.errors import USER_ERROR, end
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.loading import choose_backend

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
            help="The script, or another Python argument, and all that follows.",
            show_default=False,
        ),
    ],
) -> None:
    """Run a script with its memory in huge pages, which can speed up steps on CPUs.

    It sets GLIBC_TUNABLES, and then Python takes the place of this command.

    `keras-diagwise doctor` measures what this gains here.
    """
    choose_backend()
    environment = dict(os.environ)
    if refusal := tunables.refusal():
        typer.echo(f"No huge pages: {refusal}.", err=True)
    else:
        environment[tunables.VARIABLE] = tunables.with_huge_pages()
    command = [sys.executable, *arguments]
    try:
        if os.name == "posix":
            sys.stdout.flush()
            sys.stderr.flush()
            os.execve(sys.executable, command, environment)
        ended = subprocess.run(command, env=environment, check=False)
    except OSError as error:
        end(f"Python can't be started: {error}", USER_ERROR)
    raise typer.Exit(ended.returncode)
