"""Darknet: loads a model from `.cfg` and `.weights`, and saves trained weights."""

from __future__ import annotations

import keras

from keras_diagwise.importers import files
from keras_diagwise.importers.darknet import network, weights_file
from keras_diagwise.importers.darknet.weights_file import Header


def load(cfg: files.Name, weights: files.Name) -> keras.Model:
    """Loads a Darknet network as a Keras model, with its weights.

    All layers are stock; a convolution with one filter per channel is a
    `DepthwiseConv2D`. Images are channels last, from 0 to 1: `(batch, height, width,
    channels)`. A classifier returns `(batch, classes)`; a detector returns the inputs
    of its `[yolo]` and `[region]` sections, `(batch, height, width, filters)`. Decoding
    of boxes and the loss are left to you.

    Args:
        cfg: path of the structure.
        weights: path of the weights that Darknet wrote for it.

    Raises:
        ValueError: if a section or option is not supported, the file has more or fewer
            weights than the layers, or a weight is not finite. The error names the
            section with its line, or the byte.
    """
    graph, order = network.read(cfg)
    header, values = weights_file.read(weights, order)
    return graph.build(header.name, zip(order, values, strict=True))


def save(model: keras.Model, cfg: files.Name, weights: files.Name) -> None:
    """Writes a model's weights in Darknet's format.

    An untrained model gives back the bytes that it was loaded from. The count of images
    seen, which sets Darknet's learning rate, stays that of the loaded file.

    Args:
        model: a model from `load`, possibly trained, converted, or saved and reloaded.
        cfg: path of the structure that it was loaded from.
        weights: path to write.

    Raises:
        ValueError: if the model's variables are not those of the structure.
    """
    _, order = network.read(cfg)
    values = [weight.take(model).tobytes() for weight in order]
    files.replace(weights, "weights", b"".join([Header.of(model).to_bytes(), *values]))
