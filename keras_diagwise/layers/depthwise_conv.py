"""Depthwise convolution layers, 1-D and 2-D."""

from __future__ import annotations

import keras

from keras_diagwise.layers.base import Diagonalwise, dtype_of, replaces, with_bias
from keras_diagwise.ops import depthwise_conv
from keras_diagwise.planning.call import depthwise_problem
from keras_diagwise.problem import Problem


class DiagonalwiseDepthwiseConv(Diagonalwise):
    """The convolution of the 1-D and 2-D layers."""

    def call(self, inputs):
        outputs = depthwise_conv(
            inputs,
            self.kernel,
            self.strides,
            self.padding,
            self.data_format,
            self.dilation_rate,
            plan=self.plan,
        )
        return with_bias(self, outputs)

    @staticmethod
    def problems_of(layer, input_shape) -> dict[str, Problem]:
        return {"plan": depthwise_problem_of(layer, input_shape)}

    @staticmethod
    def input_channels(layer) -> int:
        return layer.kernel.shape[-2]


def depthwise_problem_of(layer, input_shape) -> Problem:
    """The depthwise problem of a layer that has a `depth_multiplier`."""
    channels = input_shape[-1 if layer.data_format == "channels_last" else 1]
    return depthwise_problem(
        tuple(input_shape),
        dtype_of(layer),
        (*layer.kernel_size, channels, layer.depth_multiplier),
        layer.strides,
        layer.padding,
        layer.data_format,
        layer.dilation_rate,
    )


@replaces(keras.layers.DepthwiseConv1D)
class DiagonalwiseDepthwiseConv1D(
    DiagonalwiseDepthwiseConv, keras.layers.DepthwiseConv1D
):
    """`keras.layers.DepthwiseConv1D` by whichever algorithm is fastest here.

    It takes the stock layer's arguments, has its weights, and gives its numbers
    up to rounding.

    Args:
        kernel_size: taps of the kernel.
        plan: `"auto"`, an algorithm for all three passes of training
            (`"native"`, `"direct"`, `"diagonal:32"`, …), or a
            `keras_diagwise.Plan`.
        *args, **kwargs: the stock layer's arguments.

    Input shape:
        `(batch, steps, channels)`, or `(batch, channels, steps)` under
        `data_format="channels_first"`.

    Output shape:
        `(batch, new_steps, channels * depth_multiplier)`, or with the channels
        first.

    Example:

    >>> x = np.random.rand(4, 10, 12)
    >>> DiagonalwiseDepthwiseConv1D(3, plan="direct")(x).shape
    (4, 8, 12)
    """


@replaces(keras.layers.DepthwiseConv2D)
class DiagonalwiseDepthwiseConv2D(
    DiagonalwiseDepthwiseConv, keras.layers.DepthwiseConv2D
):
    """`keras.layers.DepthwiseConv2D` by whichever algorithm is fastest here.

    It takes the stock layer's arguments, has its weights, and gives its numbers
    up to rounding. `"diagonal"` is the diagonalwise refactorization of Qin et
    al., arXiv 1803.09926.

    Args:
        kernel_size: taps of the kernel, one number or two.
        plan: `"auto"`, an algorithm for all three passes of training
            (`"native"`, `"direct"`, `"diagonal:32"`, …), or a
            `keras_diagwise.Plan`.
        *args, **kwargs: the stock layer's arguments.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)`
        under `data_format="channels_first"`.

    Output shape:
        `(batch, new_height, new_width, channels * depth_multiplier)`, or with
        the channels first.

    Example:

    >>> x = np.random.rand(4, 10, 10, 12)
    >>> DiagonalwiseDepthwiseConv2D(3, plan="direct")(x).shape
    (4, 8, 8, 12)
    """
