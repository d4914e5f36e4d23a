"""Which problems the layers of a model pose."""

from __future__ import annotations

import dataclasses

import keras

from keras_diagwise import backends
from keras_diagwise.convolution import on_one_device
from keras_diagwise.layers.depthwise_conv import problem_of
from keras_diagwise.layers.family import FAMILY
from keras_diagwise.problem import Problem

CALLED_IN_NO_GRAPH = "called in no graph"


@dataclasses.dataclass(frozen=True)
class Use:
    """A layer, called on inputs of one shape.

    Attributes:
        layer: the layer, stock or ours.
        problem: the problem that it poses on one device, or `None` if no graph of
            layers tells its input's shape.
    """

    layer: keras.layers.Layer
    problem: Problem | None

    @property
    def path(self) -> str:
        """The layer's name below its models' names."""
        return self.layer.path or self.layer.name


def uses_in(model: keras.Model, batch_size: int | None) -> list[Use]:
    """Every use of a layer that is or can become one of the package's.

    Args:
        model: the model.
        batch_size: the batch of a step, or `None` if unknown.
    """
    return [
        use
        for layer in backends.keras_internals.flatten_layers(model)
        if type(layer) in FAMILY or type(layer) in FAMILY.values()
        for use in uses_of(layer, batch_size)
    ]


def uses_of(layer: keras.layers.Layer, batch_size: int | None) -> list[Use]:
    """The uses of one layer."""
    shapes = backends.keras_internals.call_shapes(layer)
    if not shapes:
        return [Use(layer, None)]
    return [
        Use(layer, on_one_device(problem_of(layer, (batch_size, *shape[1:]))))
        for shape in shapes
    ]
