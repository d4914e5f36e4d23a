"""Pins the plans that a model would run into its layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from keras_diagwise.environment import Environment
from keras_diagwise.layers.base import Diagonalwise
from keras_diagwise.models.arguments import check_model, standardize_batch_size
from keras_diagwise.models.calls import shapes_called
from keras_diagwise.models.environment import environment_of
from keras_diagwise.models.problems import Use, uses_in
from keras_diagwise.models.summary import layer_plan
from keras_diagwise.models.swap import swap
from keras_diagwise.models.variants import by_plans
from keras_diagwise.plan import NATIVE, Plan


def pin(
    model: keras.Model, *, batch_size: int | None = None, data: Any = None
) -> keras.Model:
    """Writes the plan that each layer runs here and now into its configuration: for a
    layer with several input shapes, that of the one with the most operations.

    A pinned model, saved and loaded elsewhere, runs the same plans there, where
    `"auto"` would be resolved again. `convert(model)` undoes it.

    Args:
        model: a converted model; it is changed in place.
        batch_size: the batch of a step; `None` is unknown, and counts as the
            largest that was measured.
        data: a batch as `train_on_batch` takes it, on which a model that is not a
            graph of layers is called, see `summary`.

    Returns:
        `model`.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if it holds none of the package's layers, or `batch_size` is not a
            positive int.
    """
    check_model(model)
    batch_size = standardize_batch_size(batch_size)
    shapes = None if data is None else shapes_called(model, data)
    pinned = largest_plans(uses_in(model, batch_size, shapes), environment_of(model))
    if not pinned:
        raise ValueError(
            "`model` must hold layers of the package, built on inputs of known shape. "
            f"Received: model={model.name!r}. Call keras_diagwise.convert first."
        )
    swap(model, [by_plans(layer, plans) for layer, plans in pinned])
    return model


def largest_plans(
    uses: Iterable[Use], environment: Environment
) -> list[tuple[Diagonalwise, dict[str, str | Plan]]]:
    """The package's layers with the plans of their convolutions, of several problems
    that of the largest. A layer whose plan is unknown before a call is left out."""
    layers: dict[int, Diagonalwise] = {}
    largest: dict[tuple[int, str], int] = {}
    plans: dict[int, dict[str, str | Plan]] = {}
    for use in uses:
        layer, problem = use.layer, use.problem
        if problem is None or not problem.has_static_spatial_shape:
            continue
        if isinstance(layer, Diagonalwise):
            plan = layer_plan(use, environment).plan
            assert plan is not None
            layers[id(layer)] = layer
            # A convolution without a use (a dense one elsewhere) runs native here.
            plans.setdefault(id(layer), dict.fromkeys(layer.PLANS, NATIVE))
            if problem.flops > largest.get((id(layer), use.role), -1):
                largest[id(layer), use.role] = problem.flops
                plans[id(layer)][use.role] = plan
    return [(layer, plans[key]) for key, layer in layers.items()]
