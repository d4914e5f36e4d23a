"""Checks of the arguments that functions on whole models share."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterable, Sequence

import keras


def check_model(model) -> None:
    """Checks that `model` is a Keras model.

    Raises:
        TypeError: if it is not.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a keras.Model. Received: model={model!r} of type "
            f"{type(model).__name__}"
        )


def standardize_batch_size(batch_size: int | None) -> int | None:
    """`batch_size` as an int of Python, or `None`.

    Raises:
        ValueError: if it is not a positive int, or `None`.
    """
    if batch_size is None:
        return None
    if not is_positive_int(batch_size):
        raise ValueError(
            f"`batch_size` must be a positive int. Received: batch_size={batch_size!r}"
        )
    return operator.index(batch_size)


def standardize_batch_sizes(batch_size: int | Sequence[int] | None) -> tuple[int, ...]:
    """`batch_size` as a tuple.

    Raises:
        ValueError: if it is not one or several positive ints.
    """
    if batch_size is None:
        return ()
    sizes: tuple = (batch_size,)
    if isinstance(batch_size, Iterable):
        with contextlib.suppress(TypeError):  # an array of no axes
            sizes = tuple(batch_size)
    if not sizes or not all(map(is_positive_int, sizes)):
        raise ValueError(
            "`batch_size` must be a positive int, or several. "
            f"Received: batch_size={batch_size!r}"
        )
    return tuple(map(operator.index, sizes))


def is_positive_int(value) -> bool:
    """Whether a value is a positive int, of Python or NumPy, and not a bool."""
    try:
        return not isinstance(value, bool) and operator.index(value) > 0
    except TypeError:
        return False
