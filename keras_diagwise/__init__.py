"""Depthwise and grouped convolutions in Keras 3 by whichever algorithm is fastest."""

import importlib
from typing import TYPE_CHECKING, Any

from keras_diagwise.layers import (
    DiagonalwiseConv1D,
    DiagonalwiseConv2D,
    DiagonalwiseConv3D,
    DiagonalwiseDense,
    DiagonalwiseDepthwiseConv1D,
    DiagonalwiseDepthwiseConv2D,
    DiagonalwiseSeparableConv1D,
    DiagonalwiseSeparableConv2D,
)
from keras_diagwise.ops import conv, depthwise_conv
from keras_diagwise.plan import Plan
from keras_diagwise.version import __version__ as __version__

if TYPE_CHECKING:
    from keras_diagwise.models.convert import convert, revert
    from keras_diagwise.models.decisions import decisions
    from keras_diagwise.models.pin import pin
    from keras_diagwise.models.summary import summary
    from keras_diagwise.models.tune import tune

__all__ = [
    "DiagonalwiseConv1D",
    "DiagonalwiseConv2D",
    "DiagonalwiseConv3D",
    "DiagonalwiseDense",
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

WHOLE_MODELS = {
    **dict.fromkeys(
        ("convert", "pin", "revert", "summary", "tune"), "keras_diagwise.models"
    ),
    "decisions": "keras_diagwise.models.decisions",
}
"""Imported on first access: they import the tuner, which starts processes and is not
needed to load a model with the package's layers."""


def __getattr__(name: str) -> Any:
    if name == "models":
        return importlib.import_module("keras_diagwise.models")
    if name not in WHOLE_MODELS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(importlib.import_module(WHOLE_MODELS[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
