"""The dense layer over pixels."""

from __future__ import annotations

import keras
from keras import ops

from keras_diagwise import backends
from keras_diagwise.layers.base import Diagonalwise, replaces
from keras_diagwise.ops import dense
from keras_diagwise.planning.call import dense_layer_problem, is_left_to_stock
from keras_diagwise.problem import Problem

RANKS = (3, 4, 5)
"""Of inputs that have pixels, or the steps of a sequence."""


@replaces(keras.layers.Dense)
class DiagonalwiseDense(Diagonalwise, keras.layers.Dense):
    """`keras.layers.Dense` by whichever algorithm is fastest here: over the pixels of
    an image, or the steps of a sequence, it is a 1×1 convolution.

    It takes the stock layer's arguments, has its weights, and gives its numbers up to
    rounding. It is the stock layer on `(batch, channels)`, where it is quantized, and
    where LoRA is enabled.

    Args:
        units: output channels.
        plan: `"auto"`, `"native"`, `"matmul"`, or a `keras_diagwise.Plan`.
        *args, **kwargs: the stock layer's.

    Input shape:
        `(batch, *spatial_shape, channels)`.

    Output shape:
        `(batch, *spatial_shape, units)`.

    Example:

    >>> x = np.random.rand(4, 10, 10, 12)
    >>> DiagonalwiseDense(24, plan="matmul")(x).shape
    (4, 10, 10, 24)
    """

    def call(self, inputs, training=None):
        if len(inputs.shape) not in RANKS or self.lora_enabled:
            return super().call(inputs, training)
        outputs = dense(inputs, self.kernel, self.plan)
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        if self.activation is not None:
            outputs = self.activation(outputs)
        return outputs

    @property
    def quantize(self):
        """The stock layer's method, which refuses subclasses: a quantized layer is
        called as the stock one. Keras sets it on each layer that is made (seen in
        3.15), so only a property can be in its place."""
        stock = vars(self).get("quantize") or super().quantize

        def quantize(mode=None, type_check=True, **options):
            return stock(mode, type_check=False, **options)

        return quantize

    @quantize.setter
    def quantize(self, method):
        self.__dict__["quantize"] = method

    @staticmethod
    def problems_of(layer, input_shape) -> dict[str, Problem]:
        is_stocks = layer.lora_enabled or layer.quantization_mode is not None
        if len(input_shape) not in RANKS or is_stocks:
            return {}
        kernel_shape = (input_shape[-1], layer.units)
        problem = dense_layer_problem(input_shape, layer.compute_dtype, kernel_shape)
        return {} if is_left_to_stock(problem) else {"plan": problem}

    @staticmethod
    def is_candidate(layer, dense: bool) -> bool:
        if isinstance(layer, DiagonalwiseDense):
            return True
        if not (dense and layer.built and backends.active.MATMUL_KEEPS_AXES):
            return False
        config = layer.get_build_config() or {}
        return len(config.get("input_shape") or ()) in RANKS

    @staticmethod
    def input_channels(layer) -> int:
        return layer.input_spec.axes[-1]

    @staticmethod
    def shape_of_channels(layer, channels: int) -> tuple:
        return (None, channels)
