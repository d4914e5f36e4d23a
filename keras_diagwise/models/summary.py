"""What each layer of a model runs, and why."""

from __future__ import annotations

import dataclasses

import keras

from keras_diagwise import backends
from keras_diagwise.convolution import Convolution, conductor
from keras_diagwise.layers.depthwise_conv import problem_of
from keras_diagwise.layers.family import Diagonalwise
from keras_diagwise.planning.environment import Environment
from keras_diagwise.planning.plan import Plan
from keras_diagwise.problem import Problem


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """What a layer runs.

    Attributes:
        path: the layer's name below its models' names.
        layer: name of the layer's class.
        problem: its problem, for the batch size asked for; `None` if unknown.
        plan: the plan that a step of the model, compiled as it is, would run if it
            were traced now; `None` if unknown.
        rung: where the plan comes from.
        gain: how many times faster than native the three passes were together,
            or `None` where they were not measured for this very problem here.
    """

    path: str
    layer: str
    problem: Problem | None
    plan: Plan | None
    rung: str
    gain: float | None


def summary(model: keras.Model, *, batch_size: int | None = None) -> list[LayerPlan]:
    """What each layer of the package in a model runs.

    Args:
        model: a converted model.
        batch_size: the batch that one device will see; `None` is unknown.

    Returns:
        One entry for each of the package's layers, in the model's order.
    """
    environment = dataclasses.replace(
        Environment.current(), compiler_mode=backends.active.compiler_mode_of(model)
    )
    layers = backends.keras_internals.flatten_layers(model)
    return [
        layer_plan(layer, batch_size, environment)
        for layer in layers
        if isinstance(layer, Diagonalwise)
    ]


def layer_plan(layer, batch_size: int | None, environment: Environment) -> LayerPlan:
    """What a layer runs in an environment."""
    path, name = layer.path or layer.name, type(layer).__qualname__
    try:
        input_shape = (batch_size, *layer.input.shape[1:])
    except (AttributeError, ValueError):
        return LayerPlan(path, name, None, None, "called in no graph", None)
    problem = problem_of(layer, input_shape)
    answer = conductor.answer(problem, layer.plan, environment)
    plan = Convolution(problem, answer.plan).effective_plan
    measured = answer.decision if answer.rung == "decision" else None
    gain = measured.gain(plan) if measured else None
    return LayerPlan(path, name, problem, plan, answer.rung, gain)
