"""`direct` against the float64 reference."""

from keras_diagwise.algorithms import Direct
from tests.algorithms.suite import AlgorithmSuite


class TestDirect(AlgorithmSuite):
    algorithms = [Direct(), Direct("rows")]
