"""`direct`: the sum over kernel taps of shifted input × weight."""

from keras_diagwise.algorithms.direct.algorithm import Direct

__all__ = ["Direct"]
