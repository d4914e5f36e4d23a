"""Problems posed by the layers of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import keras

from keras_diagwise import backends
from keras_diagwise.environment import Environment
from keras_diagwise.layers.base import problems_of
from keras_diagwise.models.example import build_shapes
from keras_diagwise.models.survey import has_replacement, reason_to_leave, takes_dense
from keras_diagwise.plan import AUTO, NATIVE
from keras_diagwise.planning.call import on_one_device
from keras_diagwise.planning.dispatch import is_measurable, why_not_served
from keras_diagwise.planning.source import PlanSource
from keras_diagwise.problem import Problem

Shapes = Mapping[int, Sequence[tuple]]
"""Input shapes that layers were seen with, by the layer's `id`."""


@dataclasses.dataclass(frozen=True)
class Use:
    """A convolution of a layer, for one input shape.

    Attributes:
        path: names of the enclosing layers and its own, joined by slashes.
        layer: the layer, stock or the package's.
        problem: the problem that it poses on one device, or `None` if no graph of
            layers gives its input shape.
        role: the layer's attribute with its plan, `"plan"` or `"pointwise_plan"`.
    """

    path: str
    layer: keras.layers.Layer
    problem: Problem | None
    role: str = "plan"


def uses_in(
    model: keras.Model, batch_size: int | None, shapes: Shapes | None = None
) -> list[Use]:
    """Every use of a layer that is or can become one of the package's.

    Args:
        model: the model.
        batch_size: the batch of a step, or `None` if unknown.
        shapes: shapes recorded in a call of the model, see `calls`. Without them a
            layer outside any graph is assumed to be called on its build shapes.
    """
    in_graphs = backends.keras_internals.call_shapes(model)
    shards = backends.active.step_shards(model)
    dense = takes_dense(model)
    found = []
    for path, layer in layers_to_convert(model):
        seen = [tuple(each) for each in (shapes or {}).get(id(layer), ())]
        batches = [(batch_size, *each[1:]) for each in in_graphs[id(layer)]]
        built = [(batch_size, *each[1:]) for each in build_shapes(layer)]
        found += uses_of(path, layer, seen or batches or built, shards, dense)
    return found


def layers_to_convert(model: keras.Model) -> list[tuple[str, keras.layers.Layer]]:
    """Paths and layers of a model that are or can become the package's."""
    dense = takes_dense(model)
    return [
        (path, layer)
        for path, layer in backends.keras_internals.layers_with_paths(model)
        if has_replacement(layer, dense) and reason_to_leave(layer, dense) is None
    ]


def uses_of(
    path: str, layer: keras.layers.Layer, shapes: list[tuple], shards: int, dense: bool
) -> list[Use]:
    """The uses of one layer by input shape, its batch shared by `shards` devices.

    Its pointwise convolution counts only where dense ones have an algorithm, or where
    it was given a plan.
    """
    if not shapes:
        return [Use(path, layer, None)]
    return [
        Use(path, layer, on_one_device(problem, shards), role)
        for shape in dict.fromkeys(shapes)
        for role, problem in problems_of(layer, shape).items()
        if role == "plan" or dense or getattr(layer, role, AUTO) not in (AUTO, NATIVE)
    ]


def why_not_measured(problem: Problem | None, environment: Environment) -> str | None:
    """Reason why a use's problem can't be measured in an environment, or `None`."""
    if problem is None:
        return PlanSource.NOT_CALLED
    if not problem.has_static_spatial_shape:
        return "the spatial shape is not known"
    if reason := why_not_served(environment, problem):
        return reason
    if not is_measurable(problem):
        return f"{problem} can't be measured"
    return None
