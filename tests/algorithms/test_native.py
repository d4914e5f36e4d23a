"""`native`: stock Keras against the float64 reference, its passes apart too."""

from typing import ClassVar

from keras_diagwise.algorithms import Native
from tests.algorithms.suite import AlgorithmSuite


class TestNative(AlgorithmSuite):
    algorithms: ClassVar = [Native()]
