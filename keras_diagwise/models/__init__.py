"""Whole models."""

from keras_diagwise.models.convert import convert, revert
from keras_diagwise.models.pin import pin
from keras_diagwise.models.summary import summary
from keras_diagwise.models.tune import tune

__all__ = ["convert", "pin", "revert", "summary", "tune"]
