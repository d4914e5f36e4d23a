"""How the command line ends: what a user can mend is one line, Ctrl-C another."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import typer
import typer.core

UNEXPECTED = 1
USER_ERROR = 2
INTERRUPTED = 130


ARGUMENTS = {
    "batch_size": "--batch-size",
    "budget": "--budget",
    "image_size": "--image-size",
    "location": "the store's location",
    "model": "MODEL",
    "path": "FILE",
}
"""What the help calls the arguments of the functions behind the commands."""


class UserError(Exception):
    """What the user can mend: its text says what is wrong, and the remedy."""


@contextlib.contextmanager
def user_errors(debug: bool) -> Iterator[None]:
    """Takes what a function raises of its arguments for the user's to mend.

    Args:
        debug: leave the traceback of an error.

    Raises:
        UserError: in place of what such functions raise.
    """
    try:
        yield
    except (ImportError, OSError, TypeError, ValueError) as error:
        if debug:
            raise
        raise UserError(in_words_of_the_help(str(error))) from error


def in_words_of_the_help(text: str) -> str:
    """An error's text, with the names of arguments as the help has them."""
    names = "|".join(ARGUMENTS)
    text = re.sub(rf"`({names})`", lambda found: ARGUMENTS[found[1]], text)
    return re.sub(rf"\b(Received: )({names})=", r"\1", text)


@contextlib.contextmanager
def one_line_errors(debug: bool) -> Iterator[None]:
    """Ends a command by one line on stderr, without a traceback.

    Args:
        debug: leave the traceback of an error.
    """
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except UserError as error:
        if debug:
            raise
        end(str(error), USER_ERROR)
    except KeyboardInterrupt:
        end("interrupted", INTERRUPTED)
    except BrokenPipeError:  # whoever read the output has had enough of it
        raise
    except Exception as error:  # a mistake of ours, or of what we call
        if debug or hasattr(error, "format_message"):
            raise
        end(
            f"unexpected, {type(error).__name__}: {error}. The same with --debug shows "
            "where; please report it, with what keras-diagwise doctor prints.",
            UNEXPECTED,
        )


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
        except BrokenPipeError:
            # Python would complain of what it can't write at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
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
