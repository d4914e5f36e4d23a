"""Depthwise and grouped convolutions in Keras 3 by whichever algorithm is fastest."""

from keras_diagwise.convolution import conv, depthwise_conv
from keras_diagwise.layers import (
    DiagonalwiseConv1D,
    DiagonalwiseConv2D,
    DiagonalwiseConv3D,
    DiagonalwiseDepthwiseConv1D,
    DiagonalwiseDepthwiseConv2D,
    DiagonalwiseSeparableConv1D,
    DiagonalwiseSeparableConv2D,
)
from keras_diagwise.models import convert, pin, revert, summary, tune
from keras_diagwise.models.decisions import decisions
from keras_diagwise.planning.plan import Plan
from keras_diagwise.version import __version__ as __version__

__all__ = [
    "DiagonalwiseConv1D",
    "DiagonalwiseConv2D",
    "DiagonalwiseConv3D",
    "DiagonalwiseDepthwiseConv1D",
    "DiagonalwiseDepthwiseConv2D",
    "DiagonalwiseSeparableConv1D",
    "DiagonalwiseSeparableConv2D",
    "Plan",
    "conv",
    "convert",
    "decisions",
    "depthwise_conv",
    "pin",
    "revert",
    "summary",
    "tune",
]
