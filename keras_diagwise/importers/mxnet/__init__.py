"""MXNet: loads a classifier from symbol and parameters, and saves trained ones."""

from __future__ import annotations

import keras

from keras_diagwise.importers import files
from keras_diagwise.importers.mxnet import params, symbol
from keras_diagwise.importers.mxnet.network import Network, channels_of


def load(
    structure: files.Name, weights: files.Name, image_size: int | tuple[int, int] = 224
) -> keras.Model:
    """Loads an MXNet classifier as a Keras model, with its parameters.

    All layers are stock; a convolution with one filter per channel is a
    `DepthwiseConv2D`. Images are channels last, `(batch, height, width, channels)`, in
    the range that the model was trained on. It returns `(batch, classes)`.

    Args:
        structure: path of the `-symbol.json` that `HybridBlock.export` or
            `Module.save_checkpoint` wrote.
        weights: path of the `-0000.params` beside it.
        image_size: pixels along each side of the images, or their height and width,
            which the symbol does not give.

    Raises:
        ValueError: if a node is not supported, or a parameter is missing, of another
            shape or not finite. The error names the node, or the byte.
    """
    size = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    (nodes, outputs), arrays = symbol.read(structure), params.read(weights)
    network = Network(nodes, outputs, (*size, channels_of(nodes, arrays)))
    values = list(params.values_of(weights, arrays, network.weights))
    return network.graph.build("data", values)


def save(model: keras.Model, structure: files.Name, weights: files.Name) -> None:
    """Writes a model's parameters in MXNet's format.

    Args:
        model: a model from `load`, possibly trained, converted, or saved and reloaded.
        structure: path of the symbol that it was loaded from.
        weights: path to write.

    Raises:
        ValueError: if the model's variables are not those of the symbol.
    """
    network = Network(*symbol.read(structure), model.input_shape[1:])
    values = {name: weight.take(model) for name, weight in network.weights.items()}
    files.replace(weights, "weights", params.to_bytes(values))
