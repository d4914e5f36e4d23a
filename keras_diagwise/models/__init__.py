"""Whole models."""

from keras_diagwise.models.convert import convert, revert
from keras_diagwise.models.summary import summary

__all__ = ["convert", "revert", "summary"]
