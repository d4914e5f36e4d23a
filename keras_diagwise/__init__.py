"""Depthwise convolutions in Keras 3 by whichever algorithm is fastest."""

from keras_diagwise.convolution import depthwise_conv
from keras_diagwise.layers import (
    DiagonalwiseDepthwiseConv1D,
    DiagonalwiseDepthwiseConv2D,
)
from keras_diagwise.models import convert, revert, summary
from keras_diagwise.planning.plan import Plan

__version__ = "0.1.0"

__all__ = [
    "DiagonalwiseDepthwiseConv1D",
    "DiagonalwiseDepthwiseConv2D",
    "Plan",
    "convert",
    "depthwise_conv",
    "revert",
    "summary",
]
