"""Exit codes and one-line errors of the command line."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import typer
import typer.core

from keras_diagwise_cli.options import Debug

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
"""Names in the help of the arguments of the functions behind the commands."""


class UserError(Exception):
    """An error that the user can fix; its text gives the cause and the remedy."""


def in_words_of_the_help(error: Exception) -> str:
    """An error's text, with arguments named as in the help."""
    names = "|".join(ARGUMENTS)
    text = re.sub(rf"`({names})`", lambda found: ARGUMENTS[found[1]], str(error))
    return re.sub(rf"\b(Received: )({names})=", r"\1", text)


@contextlib.contextmanager
def user_errors(
    *types: type[Exception], saying: Callable[[Any], str] = in_words_of_the_help
) -> Iterator[None]:
    """Turns errors of the functions behind a command into user errors.

    Args:
        *types: types of the errors; those of wrong arguments and unusable files if none
            is given.
        saying: the text of a user error.

    Raises:
        UserError: in place of an error of these types.
    """
    caught = types or (ImportError, OSError, ValueError)
    try:
        yield
    except caught as error:
        raise UserError(saying(error)) from error


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Decorates a command: an error ends it with one line on stderr and an exit code.

    Adds the option `--debug`, which shows the traceback. A command that declares
    `debug` itself is passed it.
    """
    signature = inspect.signature(command, eval_str=True)
    passed = "debug" in signature.parameters

    @functools.wraps(command)
    def run(*, debug: bool = False, **options: Any) -> None:
        try:
            command(**options, **({"debug": debug} if passed else {}))
        except (typer.Exit, typer.Abort):
            raise
        except UserError as error:
            if debug:
                raise
            end(str(error), USER_ERROR)
        except KeyboardInterrupt:
            end("interrupted", INTERRUPTED)
        except BrokenPipeError:  # the reader of the output closed it
            raise
        except Exception as error:  # a bug here or in a dependency
            if debug or hasattr(error, "format_message"):
                raise
            end(
                f"unexpected {type(error).__name__}: {error}. Run it again with "
                "--debug to see where; please report it, together with the output of "
                "keras-diagwise doctor.",
                UNEXPECTED,
            )

    if not passed:
        vars(run)["__signature__"] = with_debug(signature)
        run.__annotations__ = {**command.__annotations__, "debug": Debug}
    return run


def with_debug(signature: inspect.Signature) -> inspect.Signature:
    """A command's signature with the option `--debug`, from which typer reads it."""
    how = inspect.Parameter.KEYWORD_ONLY
    option = inspect.Parameter("debug", how, default=False, annotation=Debug)
    return signature.replace(parameters=[*signature.parameters.values(), option])


def end(message: str, code: int) -> NoReturn:
    """Prints a message as one line on stderr and exits the command."""
    typer.echo(f"keras-diagwise: {' '.join(message.split())}", err=True)
    raise typer.Exit(code) from None


class Commands(typer.core.TyperGroup):
    """The group of commands; usage errors are one line too."""

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        if not standalone_mode:
            return super().main(*args, **kwargs)
        try:
            code = super().main(*args, **kwargs)
        except BrokenPipeError:
            # Python would complain at exit of output that it can't flush.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        except Exception as error:
            # Newer versions of typer vendor click (seen in 0.29), so the class of usage
            # errors has no import path that holds in all versions.
            if not hasattr(error, "format_message"):
                raise
            typer.echo(f"keras-diagwise: {usage_message(error)}", err=True)
            code = USER_ERROR
        sys.exit(code or 0)


def usage_message(error) -> str:
    """A usage error and a pointer to the help, as one line."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "keras-diagwise"
    message = " ".join(error.format_message().split()).rstrip(".")
    return f"{message}. See '{command} --help' for the options."
