"""Writes the plans that a model would run into its layers."""

from __future__ import annotations

from typing import Any

import keras

from keras_diagwise.layers.base import Diagonalwise
from keras_diagwise.models.calls import shapes_called
from keras_diagwise.models.convert import check_model
from keras_diagwise.models.problems import uses_in
from keras_diagwise.models.summary import environment_of, layer_plan
from keras_diagwise.models.swap import swap
from keras_diagwise.plan import Plan


def pin(
    model: keras.Model, *, batch_size: int | None = None, data: Any = None
) -> keras.Model:
    """Writes the plan that each layer runs here and now into its configuration.

    A pinned model, saved and loaded elsewhere, runs the same plans there, where
    `"auto"` would resolve anew. `convert(model)` undoes it.

    Args:
        model: a converted model; it is changed in place.
        batch_size: the batch of a step; `None` is unknown, and counts as the
            largest that was measured.
        data: a batch as `train_on_batch` takes it, by which a model is called that no
            graph of layers describes, see `summary`.

    Returns:
        `model`.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if it holds none of the package's layers.
    """
    check_model(model)
    environment = environment_of(model)
    largest: dict[int, tuple[int, keras.layers.Layer, Plan]] = {}
    shapes = None if data is None else shapes_called(model, data)
    for use in uses_in(model, batch_size, shapes):
        problem = use.problem
        if problem is None or not problem.has_static_spatial_shape:
            continue  # what it runs is not known before a call
        if isinstance(use.layer, Diagonalwise):
            plan = layer_plan(use, environment).plan
            assert plan is not None
            before = largest.get(id(use.layer))
            if before is None or problem.flops > before[0]:
                largest[id(use.layer)] = problem.flops, use.layer, plan
    if not largest:
        raise ValueError(
            "`model` must hold layers of the package, built on inputs of known shape. "
            f"Received: model={model.name!r}. Call keras_diagwise.convert first."
        )
    swap(model, [(layer, type(layer), plan) for _, layer, plan in largest.values()])
    return model
