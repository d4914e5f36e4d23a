"""Which problems the layers of a model pose."""

from __future__ import annotations

import dataclasses

import keras

from keras_diagwise import backends
from keras_diagwise.conductor import NOT_SERVED, is_measurable, is_served, on_one_device
from keras_diagwise.layers.family import problem_of
from keras_diagwise.models.survey import is_of_a_family, reason_to_leave
from keras_diagwise.planning.environment import Environment
from keras_diagwise.problem import Problem

CALLED_IN_NO_GRAPH = "called in no graph"


@dataclasses.dataclass(frozen=True)
class Use:
    """A layer, called on inputs of one shape.

    Attributes:
        path: names of the layers that it stands in and its own, joined by slashes.
        layer: the layer, stock or ours.
        problem: the problem that it poses on one device, or `None` if no graph of
            layers tells its input's shape.
    """

    path: str
    layer: keras.layers.Layer
    problem: Problem | None


def uses_in(model: keras.Model, batch_size: int | None) -> list[Use]:
    """Every use of a layer that is or can become one of the package's.

    Args:
        model: the model.
        batch_size: the batch of a step, or `None` if unknown.
    """
    shapes = backends.keras_internals.call_shapes(model)
    shards = backends.active.step_shards(model)
    return [
        use
        for path, layer in backends.keras_internals.layers_with_paths(model)
        if is_of_a_family(layer) and reason_to_leave(layer) is None
        for use in uses_of(path, layer, shapes[id(layer)], batch_size, shards)
    ]


def uses_of(
    path: str,
    layer: keras.layers.Layer,
    shapes: list[tuple],
    batch_size: int | None,
    shards: int,
) -> list[Use]:
    """The uses of one layer, called on inputs of these shapes, the batch of which so
    many devices share."""
    if not shapes:
        return [Use(path, layer, None)]
    problems = (problem_of(layer, (batch_size, *shape[1:])) for shape in shapes)
    return [Use(path, layer, on_one_device(each, shards)) for each in problems]


def why_not_measured(problem: Problem | None, environment: Environment) -> str | None:
    """Why a use's problem can't be measured in an environment, or `None`."""
    if problem is None:
        return CALLED_IN_NO_GRAPH
    if not problem.has_static_spatial_shape:
        return "the spatial shape is not known"
    if not is_served(environment):
        return NOT_SERVED[environment.compiler_mode]
    if not is_measurable(problem):
        return f"{problem} can't be measured"
    return None
