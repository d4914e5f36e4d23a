"""The dense layer over pixels."""

from __future__ import annotations

import keras
from keras import ops

from keras_diagwise import backends
from keras_diagwise.layers.base import Diagonalwise, dtype_of, plan_of_dense, replaces
from keras_diagwise.ops import dense
from keras_diagwise.planning.call import dense_layer_problem, is_left_to_stock
from keras_diagwise.problem import Problem

RANKS = (3, 4, 5)
"""Of inputs that have pixels, or the steps of a sequence."""


def is_over_pixels(shape) -> bool:
    """Whether inputs of a shape have pixels, and a known number of channels."""
    return len(shape) in RANKS and bool(shape[-1])


@replaces(keras.layers.Dense)
class DiagonalwiseDense(Diagonalwise, keras.layers.Dense):
    """`keras.layers.Dense` by whichever algorithm is fastest here: over the pixels of
    an image, or the steps of a sequence, it is a 1×1 convolution.

    It takes the stock layer's arguments, has its weights, and gives its numbers up to
    rounding. It is the stock layer on `(batch, channels)`, on more than three spatial
    axes, on a single channel, where it is quantized, and where LoRA is enabled; and
    `"auto"` is the stock layer but on JAX on a CPU.

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
        is_sparse = hasattr(inputs, "todense")  # JAX's, which no primitive takes
        if self.lora_enabled or is_sparse or not is_over_pixels(inputs.shape):
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

        def quantize(*arguments, **options):
            return stock(*arguments, **{**options, "type_check": False})

        return quantize

    @quantize.setter
    def quantize(self, method):
        self.__dict__["quantize"] = method

    @staticmethod
    def problems_of(layer, input_shape) -> dict[str, Problem]:
        is_stocks = layer.lora_enabled or layer.quantization_mode is not None
        if is_stocks or not is_over_pixels(input_shape):
            return {}
        kernel_shape = (input_shape[-1], layer.units)
        problem = dense_layer_problem(input_shape, dtype_of(layer), kernel_shape)
        return {} if is_left_to_stock(problem) else {"plan": problem}

    @staticmethod
    def is_candidate(layer, dense: bool) -> bool:
        if isinstance(layer, DiagonalwiseDense):
            return True
        if not (dense and backends.active.MATMUL_KEEPS_AXES):
            return False
        shape = built_shape(layer)
        return shape is None or len(shape) in RANKS

    @staticmethod
    def input_channels(layer) -> int:
        return layer.input_spec.axes[-1]

    @staticmethod
    def plans_for(layer, plan):
        return {"plan": plan_of_dense(plan)}

    @staticmethod
    def shape_of_channels(layer, channels: int) -> tuple:
        """With a single unknown axis of pixels, unless it is built without."""
        has_pixels = len(built_shape(layer) or ()) != 2
        return (None, None, channels) if has_pixels else (None, channels)


def built_shape(layer) -> tuple | list | None:
    """The shape that a layer was built with; `None` if it is not built, and empty if a
    subclass keeps another configuration."""
    if not layer.built:
        return None
    try:
        config = layer.get_build_config()
    except Exception:  # of a subclass, as its configuration can be anything
        return None
    shape = config.get("input_shape") if isinstance(config, dict) else None
    return shape if isinstance(shape, tuple | list) else ()
