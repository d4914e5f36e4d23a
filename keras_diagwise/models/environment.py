"""The environment in which a model's steps run."""

from __future__ import annotations

import dataclasses

import keras

from keras_diagwise import backends
from keras_diagwise.environment import Environment


def environment_of(model: keras.Model) -> Environment:
    """The environment of a model's steps, with its compiler mode."""
    mode = backends.active.compiler_mode_of(model)
    return dataclasses.replace(Environment.current(), compiler_mode=mode)


def environment_of_models() -> Environment:
    """The environment of a model compiled with Keras's defaults."""
    model = keras.Sequential(name="any")
    model.compile("sgd", "mse")
    return environment_of(model)
