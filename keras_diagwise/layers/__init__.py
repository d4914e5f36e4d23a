"""Layers: subclasses of the stock ones, with only the convolution replaced."""

from keras_diagwise.layers.base import STOCK_TO_OURS
from keras_diagwise.layers.conv import (
    DiagonalwiseConv1D,
    DiagonalwiseConv2D,
    DiagonalwiseConv3D,
)
from keras_diagwise.layers.dense import DiagonalwiseDense
from keras_diagwise.layers.depthwise_conv import (
    DiagonalwiseDepthwiseConv1D,
    DiagonalwiseDepthwiseConv2D,
)
from keras_diagwise.layers.separable_conv import (
    DiagonalwiseSeparableConv1D,
    DiagonalwiseSeparableConv2D,
)

__all__ = [
    "STOCK_TO_OURS",
    "DiagonalwiseConv1D",
    "DiagonalwiseConv2D",
    "DiagonalwiseConv3D",
    "DiagonalwiseDense",
    "DiagonalwiseDepthwiseConv1D",
    "DiagonalwiseDepthwiseConv2D",
    "DiagonalwiseSeparableConv1D",
    "DiagonalwiseSeparableConv2D",
]
