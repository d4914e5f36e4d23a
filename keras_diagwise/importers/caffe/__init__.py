"""Caffe: a classifier from its prototxt and caffemodel, and trained weights back."""

from __future__ import annotations

import keras

from keras_diagwise.importers import files
from keras_diagwise.importers.caffe import caffemodel, prototxt
from keras_diagwise.importers.caffe.network import Network


def load(structure: files.Name, weights: files.Name) -> keras.Model:
    """The Keras model of a classifier of Caffe, with its weights.

    All layers are stock; a convolution with one filter for each channel is a
    `DepthwiseConv2D`, a BatchNorm and the Scale behind it are one layer. Images are
    channels last, `(batch, height, width, channels)`, with the order of channels and
    the range that the model was trained on. It returns `(batch, classes)`.

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
    """Writes a model's weights as Caffe reads them.

    Args:
        model: what `load` returned, trained, converted or saved and loaded meanwhile.
        structure: path of the prototxt that it was loaded from.
        weights: path to write.

    Raises:
        ValueError: if the model's variables are not those of the structure.
    """
    network = Network(prototxt.read(structure))
    files.replace(weights, "weights", caffemodel.to_bytes(network.layers, model))
