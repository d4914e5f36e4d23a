"""A copy of a model that is equal in everything that training touches."""

from __future__ import annotations

import json
import random
import re
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np

from keras_diagwise import backends
from keras_diagwise.backends.keras_internals import (
    call_alike,
    exempt_from_weight_decay,
    remat_mode,
)
from keras_diagwise.layers.family import Diagonalwise


def faithful_copy(model: keras.Model) -> keras.Model:
    """A model with the same layers, weights, seed states, trainable flags,
    optimizer state and compile settings, that shares nothing with the first.

    `keras.models.clone_model` copies none of the states. Saving and loading copies
    all but the seeds' (seen in Keras 3.15), for what Keras can save. What the copy
    should hold is compared afterwards.

    Raises:
        ValueError: if the model can't be copied so, with the difference.
    """
    for layer in backends.keras_internals.flatten_layers(model):
        if isinstance(layer, keras.layers.Lambda):
            raise refusal(
                model,
                f"The code of its Lambda layer {layer.name!r} may miss what it uses",
            )
        if "call" in vars(layer):
            raise refusal(
                model, f"The patched `call` of its layer {layer.name!r} would be lost"
            )
    random_state = random.getstate()  # seeds that are not given are drawn from it
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            path = Path(folder) / "model.keras"
            model.save(path)
            copy = keras.models.load_model(path)
    except Exception as error:
        raise refusal(model, f"Keras can't save and load it: {error}") from error
    finally:
        random.setstate(random_state)
    for original, copied in zip(model.variables, copy.variables, strict=False):
        if original.shape == copied.shape and original.dtype == copied.dtype:
            copied.assign(own_array(original))
    convert_as(model, copy)
    call_alike(model, copy)
    for name in SET_AFTER_COMPILE if model.compiled else ():
        setattr(copy, name, getattr(model, name))
    difference = first_difference(model, copy)
    if difference:
        raise refusal(model, difference)
    return copy


def convert_as(model: keras.Model, copy: keras.Model) -> None:
    """Makes the layers of a copy the package's where the model's are: a layer of the
    user's that holds others makes stock ones when it is loaded."""
    pairs = zip(
        backends.keras_internals.flatten_layers(model),
        backends.keras_internals.flatten_layers(copy),
        strict=False,
    )
    for layer, copied in pairs:
        if isinstance(layer, Diagonalwise) and type(copied) is layer.stock:
            copied.__class__ = type(layer)
            copied.plan = layer.plan


SET_AFTER_COMPILE = ("run_eagerly", "steps_per_execution", "jit_compile")
"""Settings of a compiled model that can be changed and are not saved."""


def own_array(variable) -> np.ndarray:
    """A variable's value in memory of its own: JAX's steps donate theirs, and a
    plain conversion to numpy may share it."""
    return np.array(keras.ops.convert_to_numpy(variable.value), copy=True)


def refusal(model, reason: str) -> ValueError:
    return ValueError(
        f"The model {model.name!r} can't be copied faithfully. {reason}. Use "
        "`inplace=True` to change the model itself."
    )


def first_difference(model, copy) -> str | None:
    """What differs between two models, or `None` if nothing does."""
    for name, facts in FACTS.items():
        expected = facts(model)
        if expected is not None and facts(copy) != expected:
            return f"Its {name} would differ"
    return None


def structure(model) -> list:
    layers = backends.keras_internals.flatten_layers(model)
    return [(type(layer).__qualname__, layer.name) for layer in layers]


def trainable_flags(model) -> list:
    layers = backends.keras_internals.flatten_layers(model)
    flags = [variable.trainable for variable in model.variables]
    return [layer.trainable for layer in layers] + flags


def dtype_policies(model) -> list:
    layers = backends.keras_internals.flatten_layers(model)
    return [layer.dtype_policy.name for layer in layers]


def values(variables) -> list:
    arrays = [keras.ops.convert_to_numpy(variable.value) for variable in variables]
    names = [variable.name for variable in variables]
    return [
        (name, array.shape, str(array.dtype), array.tobytes())
        for name, array in zip(names, arrays, strict=True)
    ]


def variables(model) -> list:
    return [(given_name(name), *state) for name, *state in values(model.variables)]


def given_name(name: str) -> str | None:
    """A variable's name, unless Keras made it up: it counts those, so that a copy's
    go on from the model's (`variable`, `variable_1`, …)."""
    return None if re.fullmatch(r"variable(_\d+)?", name) else name


def optimizer_state(model) -> list | None:
    """Without the variables' names: those of a `Sequential` that was trained before it
    was saved begin with the model's, and those of a loaded one do not (seen in Keras
    3.15)."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return None
    return [state for _, *state in values(optimizer.variables)]


def compile_settings(model) -> str | None:
    """The configuration, and what Keras does not save of it."""
    if not model.compiled:
        return None
    now = {name: getattr(model, name) for name in SET_AFTER_COMPILE}
    return json.dumps([model.get_compile_config(), now], default=repr)


def attributes(model) -> list:
    """What layers, loss and optimizer hold beside their configuration."""
    layers = backends.keras_internals.flatten_layers(model)
    found: list = [(own_attributes(layer), remat_mode(layer)) for layer in layers]
    if model.compiled:
        optimizer = model.optimizer
        found += [own_attributes(model.loss), own_attributes(optimizer)]
        found += [exempt_from_weight_decay(optimizer)]
    return found


def own_attributes(holder) -> dict:
    """The public plain attributes of an object whose class is not Keras's own:
    Keras's are told by their configuration."""
    if type(holder).__module__.partition(".")[0] in ("keras", "keras_diagwise"):
        return {}
    plain = (bool, int, float, str, tuple, list, set, dict, type(None))
    return {
        name: repr(value)
        for name, value in getattr(holder, "__dict__", {}).items()
        if not name.startswith("_") and type(value) in plain
    }


def strategy(model) -> str | None:
    """The class of a model's `tf.distribute` strategy."""
    found = getattr(model, "distribute_strategy", None)
    return found and type(found).__name__


FACTS = {
    "structure": structure,
    "trainable flags": trainable_flags,
    "dtype policies": dtype_policies,
    "weights and seed states": variables,
    "optimizer state": optimizer_state,
    "compile settings": compile_settings,
    "distribution strategy": strategy,
    "attributes": attributes,
}
