"""What each layer of a model runs, and why."""

from __future__ import annotations

import dataclasses

import keras

from keras_diagwise import backends
from keras_diagwise.convolution import Convolution, conductor
from keras_diagwise.layers.family import Diagonalwise
from keras_diagwise.models.problems import CALLED_IN_NO_GRAPH, Use, uses_in
from keras_diagwise.planning.decision import Decision
from keras_diagwise.planning.environment import Environment
from keras_diagwise.planning.plan import Plan
from keras_diagwise.problem import Problem


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """What a layer runs on inputs of one shape.

    Attributes:
        path: the layer's name below its models' names.
        layer: name of the layer's class.
        problem: its problem, for the batch size asked for; `None` if unknown.
        plan: the plan that a step of the model, compiled as it is, would run if it
            were traced now; `None` if unknown.
        rung: where the plan comes from, one of `keras_diagwise.planning.RUNGS`.
        gain: how many times faster than native the three passes were together,
            or `None` where they were not measured for this very problem here.
        decision: what was measured, if the plan comes from a measurement.
    """

    path: str
    layer: str
    problem: Problem | None
    plan: Plan | None
    rung: str
    gain: float | None
    decision: Decision | None = None


def summary(model: keras.Model, *, batch_size: int | None = None) -> list[LayerPlan]:
    """What each layer of the package in a model runs.

    Args:
        model: a converted model.
        batch_size: the batch of a step; `None` is unknown.

    Returns:
        One entry for each of the package's layers, and for each shape of inputs
        that it is called on, in the model's order.
    """
    environment = environment_of(model)
    return [
        layer_plan(use, environment)
        for use in uses_in(model, batch_size)
        if isinstance(use.layer, Diagonalwise)
    ]


def environment_of(model: keras.Model) -> Environment:
    """The environment in which a model's steps run, compiled as they are."""
    mode = backends.active.compiler_mode_of(model)
    return dataclasses.replace(Environment.current(), compiler_mode=mode)


def environment_of_models() -> Environment:
    """The environment of a model that is compiled as Keras does by itself."""
    model = keras.Sequential(name="any")
    model.compile("sgd", "mse")
    return environment_of(model)


def layer_plan(use: Use, environment: Environment) -> LayerPlan:
    """What a layer runs in an environment."""
    path, name, problem = use.path, type(use.layer).__qualname__, use.problem
    if problem is None:
        return LayerPlan(path, name, None, None, CALLED_IN_NO_GRAPH, None)
    answer = conductor.answer(problem, use.layer.plan, environment)
    plan = Convolution(problem, answer.plan).effective_plan
    measured = answer.decision if answer.rung == "decision" else None
    gain = measured.gain(plan) if measured else None
    return LayerPlan(path, name, problem, plan, answer.rung, gain, answer.decision)
