"""Steps of one model under several sets of plans in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_diagwise import backends
from keras_diagwise.layers.base import Diagonalwise, ours_for
from keras_diagwise.models.example import Example
from keras_diagwise.models.object_graph import COMPILED
from keras_diagwise.models.swap import Change, assign
from keras_diagwise.plan import Plan

STEP_METHODS = ("train_step", "compute_loss")
"""Methods that a user overrides to train in another way."""


class Variant:
    """A model with changed classes and plans, and its own compiled functions.

    Args:
        model: the model.
        changes: changes to its layers.
        run: a step of the model.
    """

    def __init__(
        self,
        model: keras.Model,
        changes: Sequence[Change],
        run: Callable[[], object],
    ):
        self._model, self._run = model, run
        self._step: Any = getattr(model, "train_step", None)
        self.become(changes)

    def become(self, changes: Sequence[Change]) -> None:
        """Replaces the changes; the next call traces and compiles again."""
        self._changes = changes
        self._attributes: dict[str, Any] = dict.fromkeys(COMPILED)
        # JAX compiles equal functions once, and a model's methods are equal.
        self._attributes["train_step"] = lambda *arguments: self._step(*arguments)
        # Dynamo compiles only a few variants of one code object; later ones run eager.
        if backends.active.python_trace is not None:
            backends.active.forget_compiled(self._step)

    def __call__(self) -> object:
        """Runs a step; the model keeps the variant's changes."""
        for change in self._changes:
            assign(*change)
        vars(self._model).update(self._attributes)
        result = self._run()
        for name in COMPILED:
            self._attributes[name] = vars(self._model).get(name)
        return result


def as_stock(layer: keras.layers.Layer) -> Change:
    """The change that makes a layer stock."""
    return layer, layer.stock if isinstance(layer, Diagonalwise) else type(layer), None


def by_plans(layer: keras.layers.Layer, plans: Mapping[str, str | Plan]) -> Change:
    """The change that makes a layer the package's, with a plan per convolution."""
    return layer, ours_for(layer), plans


def step_of(model: keras.Model, example: Example, training: bool):
    """A step of a model on a batch.

    The model is recompiled with a small SGD and a mean squared error in its compiler
    mode. It stays as compiled if the batch is the user's or it has its own step.
    """
    if not training:
        return lambda: model.predict_on_batch(example.inputs)
    if not (model.compiled and (example.is_users or has_own_step(model))):
        modes = {name: getattr(model, name) for name in ("jit_compile", "run_eagerly")}
        model.compile(keras.optimizers.SGD(1e-6), "mse", **modes)
    given = {"x": example.inputs, "y": example.targets}
    return lambda: model.train_on_batch(**given, sample_weight=example.weights)


def has_own_step(model: keras.Model) -> bool:
    """Whether user code overrides how a model trains."""
    return any(
        name in vars(model) or getattr(type(model), name) is not stock
        for name, stock in OF_STOCK.items()
    )


OF_STOCK = {name: getattr(keras.Model, name, None) for name in STEP_METHODS}
