"""A copy of a model that is equal in everything that training touches."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import keras
import numpy as np

from keras_diagwise import backends


def faithful_copy(model: keras.Model) -> keras.Model:
    """A model with the same layers, weights, seed states, trainable flags,
    optimizer state and compile settings, that shares nothing with the first.

    `keras.models.clone_model` copies none of the states. Saving and loading copies
    all but the seeds' (seen in Keras 3.15), for what Keras can save. What the copy
    should hold is compared afterwards.

    Raises:
        ValueError: if the model can't be copied so, with the difference.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            model.save(path)
            copy = keras.models.load_model(path, safe_mode=False)
    except Exception as error:
        raise refusal(model, f"Keras can't save and load it: {error}") from error
    for original, copied in zip(model.variables, copy.variables, strict=False):
        if original.shape == copied.shape and original.dtype == copied.dtype:
            copied.assign(own_array(original))
    difference = first_difference(model, copy)
    if difference:
        raise refusal(model, difference)
    return copy


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
    return values(model.variables)


def optimizer_state(model) -> list | None:
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return None
    return values(optimizer.variables)


def compile_settings(model) -> str | None:
    return (
        json.dumps(model.get_compile_config(), default=repr) if model.compiled else None
    )


FACTS = {
    "structure": structure,
    "trainable flags": trainable_flags,
    "dtype policies": dtype_policies,
    "weights and seed states": variables,
    "optimizer state": optimizer_state,
    "compile settings": compile_settings,
}
