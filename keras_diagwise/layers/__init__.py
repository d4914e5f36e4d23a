"""Layers: subclasses of the stock ones, only their convolution replaced."""

from keras_diagwise.layers.depthwise_conv import (
    DiagonalwiseDepthwiseConv1D,
    DiagonalwiseDepthwiseConv2D,
)
from keras_diagwise.layers.family import FAMILY

__all__ = ["FAMILY", "DiagonalwiseDepthwiseConv1D", "DiagonalwiseDepthwiseConv2D"]
