"""Swaps the classes and plans of layers, and makes the model trace again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import keras

from keras_diagwise import backends
from keras_diagwise.layers.base import Diagonalwise, plans_of
from keras_diagwise.plan import Plan

Change = tuple[keras.layers.Layer, type, Mapping[str, str | Plan] | None]
"""A layer, its new class, and its plans by attribute (`None` for a stock class)."""


def swap(model, changes: Sequence[Change]) -> None:
    """Swaps the classes and plans of layers, all or none."""
    with swapped(model, changes):
        pass


@contextlib.contextmanager
def swapped(model, changes: Sequence[Change]) -> Iterator[None]:
    """`swap` as a context manager, undone if its body fails."""
    before = [
        (
            layer,
            type(layer),
            plans_of(layer) if isinstance(layer, Diagonalwise) else None,
        )
        for layer, *_ in changes
    ]
    try:
        for change in changes:
            assign(*change)
        forget_compiled(model)
        yield
    except BaseException:
        for change in before:
            assign(*change)
        forget_compiled(model)
        raise


def assign(layer, new_class, plans: Mapping[str, str | Plan] | None) -> None:
    names = layer.PLANS if isinstance(layer, Diagonalwise) else ()
    layer.__class__ = new_class
    if plans is None:
        for name in [each for each in names if hasattr(layer, each)]:
            delattr(layer, name)
    else:
        for name, plan in plans.items():
            # Checked before; here it may be within a step that is timed.
            keras.layers.Layer.__setattr__(layer, name, plan)


def forget_compiled(model) -> None:
    """Makes a model's next step trace again: a compiled step keeps its plans."""
    for layer in backends.keras_internals.flatten_layers(model):
        if isinstance(layer, keras.Model):
            for name in ("train_step", "test_step"):
                step = getattr(layer, name, None)  # absent if the backend can't train
                backends.active.forget_compiled(step)
            for name in ("train", "test", "predict"):
                if getattr(layer, f"{name}_function", None) is not None:
                    make_anew(layer, f"{name}_function")


def make_anew(model, function: str) -> None:
    """Makes a compiled function of a model again, at once: a running `fit` needs it."""
    before = getattr(model, function)
    setattr(model, function, None)
    try:
        getattr(model, f"make_{function}")()
    except BaseException:
        setattr(model, function, before)
        raise
