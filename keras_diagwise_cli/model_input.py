"""The model that a command is given: its options, and how it is loaded."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_diagwise_cli.errors import user_errors

if TYPE_CHECKING:
    import keras


def checked_name(name: str) -> str:
    """Validates a model's name before Keras is loaded: its file must exist."""
    if name.endswith(".keras") and not Path(name).is_file():
        raise typer.BadParameter(f"File {name!r} does not exist")
    return name


ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        callback=checked_name,
        help="A .keras file, or the name of a model of keras.applications.",
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="PIXELS",
        help="Height and width of the images, for a model of keras.applications.",
    ),
]
DtypePolicy = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Dtype policy, such as mixed_bfloat16, for a model of keras.applications.",
    ),
]
Import = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="A Python module that registers your own classes; repeat it for several.",
    ),
]
JitCompile = Annotated[
    bool | None,
    typer.Option(
        "--jit-compile/--no-jit-compile",
        help="Whether to compile the model's steps; by default as Keras decides.",
    ),
]


def loaded(
    name: str,
    image_size: int | None,
    dtype_policy: str | None,
    jit_compile: bool | None,
    modules: Iterable[str] | None = None,
) -> keras.Model:
    """Loads the named model with its options applied.

    Raises:
        UserError: if a module can't be imported.
        ValueError: if there is no such model, or it does not take an option.
    """
    import keras

    from keras_diagwise.models.load import load

    for module in modules or ():
        import_module(module)
    if dtype_policy:
        if name.endswith(".keras"):
            raise ValueError(
                "--dtype-policy must be left out for a file: its model has its own. "
                f"Received: {dtype_policy}"
            )
        keras.config.set_dtype_policy(dtype_policy)
    model = load(name, image_size)
    if jit_compile is not None:
        model.jit_compile = jit_compile
    return model


def title(figures: dict) -> str:
    """Display name of a model: its own, or its file's if Keras named it by class.

    Args:
        figures: with `model`, its own name, and `given`, the command's argument.
    """
    if re.fullmatch(r"(functional|sequential|model)(_\d+)?", figures["model"]):
        return Path(figures["given"]).stem
    return figures["model"]


def import_module(name: str) -> None:
    """Imports a module, also from the current folder, as `python -m` does.

    Raises:
        UserError: if it can't be imported.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    with user_errors(
        Exception,  # a user's module can fail in any way
        saying=lambda error: (
            "--import must name a module that can be imported, such as my_layers for "
            f"my_layers.py. Received: {name!r}. {type(error).__name__}: {error}"
        ),
    ):
        importlib.import_module(name)


def converted(model: keras.Model) -> keras.Model:
    """Converts the model in place, unless a layer is the package's already.

    Raises:
        ValueError: if it can't be converted.
    """
    import warnings

    from keras_diagwise import convert
    from keras_diagwise.backends import keras_internals
    from keras_diagwise.layers.base import Diagonalwise

    layers = [layer for _, layer in keras_internals.layers_with_paths(model)]
    if any(isinstance(layer, Diagonalwise) for layer in layers):
        return model
    with warnings.catch_warnings():
        # The report says itself that there is nothing to convert.
        warnings.simplefilter("ignore", UserWarning)
        return convert(model, verbose=0)
