"""What layers are called on, where no graph of layers tells it but a call does."""

from __future__ import annotations

from typing import Any

import keras

from keras_diagwise.models.example import example_of
from keras_diagwise.models.problems import Shapes, layers_to_convert
from keras_diagwise.models.snapshot import restored
from keras_diagwise.models.variants import Variant, step_of


def shapes_called(model: keras.Model, data: Any) -> Shapes:
    """What layers that can become the package's are called on by a batch: where the
    model is called, or trained, if it has no call of its own. The model is put back as
    it was.

    Args:
        model: the model.
        data: a batch as `train_on_batch` takes it.

    Raises:
        ValueError: if the model neither takes it nor trains on it.
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
