"""Caffe: loads a classifier from prototxt and caffemodel, and saves trained weights."""

from __future__ import annotations

import keras

from keras_diagwise.importers import files
from keras_diagwise.importers.caffe import caffemodel, prototxt
from keras_diagwise.importers.caffe.network import Network


def load(structure: files.Name, weights: files.Name) -> keras.Model:
    """Loads a Caffe classifier as a Keras model, with its weights.

    All layers are stock; a convolution with one filter per channel is a
    `DepthwiseConv2D`, and a BatchNorm and the Scale after it become one layer. Images
    are channels last, `(batch, height, width, channels)`, in the channel order and
    range that the model was trained on. It returns `(batch, classes)`.

    Args:
        structure: path of the `.prototxt` for deployment, with an input of known size.
        weights: path of the `.caffemodel`.

    Raises:
        ValueError: if a layer or parameter is not supported, or a blob is missing, of
            another shape or not finite. The error names the line, or the byte.
    """
    network = Network(prototxt.read(structure))
    return network.graph.build("data", list(caffemodel.read(weights, network.layers)))


def save(model: keras.Model, structure: files.Name, weights: files.Name) -> None:
    """Writes a model's weights in Caffe's format.

    Args:
        model: a model from `load`, possibly trained, converted, or saved and reloaded.
        structure: path of the prototxt that it was loaded from.
        weights: path to write.

    Raises:
        ValueError: if the model's variables are not those of the structure.
    """
    network = Network(prototxt.read(structure))
    files.replace(weights, "weights", caffemodel.to_bytes(network.layers, model))
