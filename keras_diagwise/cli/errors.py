"""How the command line ends: what a user can mend is one line, Ctrl-C another."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import typer
import typer.core

USER_ERROR = 2
INTERRUPTED = 130


class UserError(Exception):
    """What the user can mend: its text says what is wrong, and the remedy."""


@contextlib.contextmanager
def one_line_errors(debug: bool) -> Iterator[None]:
    """Ends a command by one line on stderr, without a traceback.

    Args:
        debug: leave the traceback of a `UserError`.
    """
    try:
        yield
    except UserError as error:
        if debug:
            raise
        end(str(error), USER_ERROR)
    except KeyboardInterrupt:
        end("interrupted", INTERRUPTED)


def end(message: str, code: int) -> None:
    """Prints a message as one line on stderr and leaves the command."""
    typer.echo(f"keras-diagwise: {' '.join(message.split())}", err=True)
    raise typer.Exit(code) from None


class Commands(typer.core.TyperGroup):
    """The commands; a wrong option is one line too."""

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        if not standalone_mode:
            return super().main(*args, **kwargs)
        try:
            code = super().main(*args, **kwargs)
        except Exception as error:
            # Newer versions of typer hold click inside themselves (seen in 0.29), so
            # that the class of its usage errors has no importable name in all.
            if not hasattr(error, "format_message"):
                raise
            typer.echo(f"keras-diagwise: {usage_message(error)}", err=True)
            code = USER_ERROR
        sys.exit(code or 0)


def usage_message(error) -> str:
    """A usage error and where to read on, as one line."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "keras-diagwise"
    message = " ".join(error.format_message().split()).rstrip(".")
    return f"{message}. See '{command} --help' for the options."
