"""`direct` against the float64 reference."""

from typing import ClassVar

from keras_diagwise.algorithms import Direct
from tests.algorithms.suite import AlgorithmSuite


class TestDirect(AlgorithmSuite):
    algorithms: ClassVar = [Direct(), Direct("rows")]
