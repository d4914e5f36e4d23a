"""Pins the plans that a model would run into its layers."""

from __future__ import annotations

from typing import Any

import keras

from keras_diagwise.layers.base import Diagonalwise
from keras_diagwise.models.arguments import check_model, standardize_batch_size
from keras_diagwise.models.calls import shapes_called
from keras_diagwise.models.environment import environment_of
from keras_diagwise.models.problems import uses_in
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
    environment = environment_of(model)
    largest: dict[tuple[int, str], int] = {}
    plans: dict[int, dict[str, str | Plan]] = {}
    layers: dict[int, Diagonalwise] = {}
    shapes = None if data is None else shapes_called(model, data)
    for use in uses_in(model, batch_size, shapes):
        problem = use.problem
        if problem is None or not problem.has_static_spatial_shape:
            continue  # its plan is unknown before a call
        if isinstance(use.layer, Diagonalwise):
            plan = layer_plan(use, environment).plan
            assert plan is not None
            key = id(use.layer)
            layers[key] = use.layer
            # A convolution without a use (a dense one elsewhere) runs native here.
            plans.setdefault(key, dict.fromkeys(use.layer.PLANS, NATIVE))
            if problem.flops > largest.get((key, use.role), -1):
                largest[key, use.role] = problem.flops
                plans[key][use.role] = plan
    if not largest:
        raise ValueError(
            "`model` must hold layers of the package, built on inputs of known shape. "
            f"Received: model={model.name!r}. Call keras_diagwise.convert first."
        )
    swap(model, [by_plans(layers[key], plans[key]) for key in layers])
    return model
