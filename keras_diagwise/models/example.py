"""A batch that a model can be called and trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Example:
    """A batch.

    Attributes:
        inputs: as the model takes them.
        targets: as its loss takes them; `None` if it needs none.
        weights: sample weights, or `None`.
        is_users: whether the user gave it; else it is random inputs and zero targets.
    """

    inputs: Any
    targets: Any
    weights: Any = None
    is_users: bool = False


def example_of(model: keras.Model, batch_size: int, data: Any = None) -> Example:
    """A batch for a model: the user's, or random numbers in the shapes of its inputs.

    Args:
        model: a graph of layers, or a model that was called before.
        batch_size: size of a random batch.
        data: a batch as `train_on_batch` takes it: inputs, or a tuple of inputs,
            targets and sample weights.

    Raises:
        ValueError: if `data` is left out and the shape of an input is unknown.
    """
    if data is not None:
        inputs, targets, weights = keras.utils.unpack_x_y_sample_weight(data)
        return Example(inputs, targets, weights, is_users=True)
    generator = np.random.default_rng(0)
    specs = input_specs(model)
    inputs = keras.tree.map_structure(
        lambda spec: random_input(generator, spec, batch_size), specs
    )
    return Example(inputs, zeros_like_outputs(model, inputs, batch_size))


def batch_size_of_data(data: Any) -> int:
    """Number of samples in a batch.

    Raises:
        ValueError: if `data` is not a batch.
    """
    for each in keras.tree.flatten(data):
        shape = tuple(getattr(each, "shape", ()))
        if shape:
            return int(shape[0])
    raise ValueError(
        "`data` must be a batch as train_on_batch takes it: inputs, or a tuple of "
        f"inputs, targets and weights, in arrays. Received: data={data!r:.100}"
    )


def input_specs(model: keras.Model) -> Any:
    """Symbolic inputs of a model."""
    if getattr(model, "inputs", None):
        # A Sequential has no input structure, and needs none.
        is_plain = isinstance(model, keras.Sequential)
        return model.inputs[0] if is_plain else model.input
    shapes = build_shapes(model)
    if len(shapes) != 1:
        raise ValueError(
            "it is not a graph of layers, and was not called on one input before. Pass "
            "`data`, a batch as train_on_batch takes it"
        )
    return keras.KerasTensor((None, *shapes[0][1:]), dtype="float32", name="inputs")


def build_shapes(layer: keras.layers.Layer) -> list[tuple]:
    """Input shapes that a layer was built on; none if they are nested."""
    config = layer.get_build_config() if layer.built else None
    if not config:
        return []
    shapes = config.get("shapes_dict", config).values()
    is_shape = all(isinstance(each, tuple | list) and len(each) > 1 for each in shapes)
    return [tuple(each) for each in shapes] if is_shape else []


def random_input(generator, spec, batch_size: int) -> np.ndarray:
    """An array for an input: zeros for integers and booleans, else random.

    Raises:
        ValueError: if its shape is unknown.
    """
    shape = (batch_size, *spec.shape[1:])
    if None in shape:
        raise ValueError(f"the shape of its input {spec.name!r} is not known")
    dtype = keras.backend.standardize_dtype(spec.dtype)
    if dtype.startswith(("int", "uint", "bool")):
        return np.zeros(shape, dtype)
    return generator.standard_normal(shape).astype("float32")


def zeros_like_outputs(model: keras.Model, inputs: Any, batch_size: int) -> Any:
    """Zero targets in the shapes of a model's outputs; one array for one output."""
    found = list(output_shapes(model, inputs))
    zeros = [np.zeros((batch_size, *shape[1:]), "float32") for shape in found]
    return zeros if len(zeros) > 1 else zeros[0]


def output_shapes(model: keras.Model, inputs: Any) -> Iterator[tuple]:
    """The shapes of a model's outputs."""
    outputs = getattr(model, "outputs", None)
    if not outputs:
        specs = keras.tree.map_structure(
            lambda each: keras.KerasTensor(each.shape, dtype=str(each.dtype)), inputs
        )
        outputs = keras.tree.flatten(model.compute_output_spec(specs))
    for each in outputs:
        yield tuple(each.shape)
