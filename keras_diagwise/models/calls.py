"""Records the input shapes of layers in a call, where no graph of layers gives them."""

from __future__ import annotations

from typing import Any

import keras

from keras_diagwise.models.example import example_of
from keras_diagwise.models.problems import Shapes, layers_to_convert
from keras_diagwise.models.snapshot import restored
from keras_diagwise.models.variants import Variant, step_of


def shapes_called(model: keras.Model, data: Any) -> Shapes:
    """Input shapes of the layers that are or can become the package's, for a batch.

    The model is called, or trained if it does not implement `call`, and then restored.

    Args:
        model: the model.
        data: a batch as `train_on_batch` takes it.

    Raises:
        ValueError: if the model can neither be called nor trained on it.
    """
    found: dict[int, list[tuple]] = {}

    def recording(layer):
        call = layer.call

        def record(inputs, *arguments, **options):
            found.setdefault(id(layer), []).append(tuple(inputs.shape))
            return call(inputs, *arguments, **options)

        return record

    example = example_of(model, 1, data)
    with restored(model):
        for _, layer in layers_to_convert(model):
            vars(layer)["call"] = recording(layer)
        try:
            model(example.inputs)
        except NotImplementedError:
            found.clear()
            Variant(model, [], step_of(model, example, training=True))()
    return found
