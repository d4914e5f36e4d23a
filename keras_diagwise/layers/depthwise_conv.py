"""Depthwise convolution layers, 1-D and 2-D."""

from __future__ import annotations

import keras
from keras import ops

from keras_diagwise.convolution import depthwise_conv, depthwise_problem
from keras_diagwise.layers.family import Diagonalwise, stands_for
from keras_diagwise.planning.plan import Plan
from keras_diagwise.problem import Problem


class DiagonalwiseDepthwiseConv(Diagonalwise):
    """The convolution that the 1-D and the 2-D layer share."""

    def compute_output_shape(self, input_shape):
        """The stock layer's; `build` asks for it too, so a plan that does not fit
        the channels is refused before anything is built."""
        check_plan(self, input_shape, self.plan)
        return super().compute_output_shape(input_shape)

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
        if self.use_bias:
            shape = [1] * (self.rank + 2)
            shape[-1 if self.data_format == "channels_last" else 1] = self.bias.shape[0]
            outputs = ops.add(outputs, ops.reshape(self.bias, shape))
        if self.activation is not None:
            return self.activation(outputs)
        return outputs


def problem_of(layer, input_shape) -> Problem:
    """The problem of a depthwise layer, stock or ours, built or not.

    Args:
        layer: the layer.
        input_shape: the shape of its input, with `None` for what is unknown.
    """
    channels = input_shape[-1 if layer.data_format == "channels_last" else 1]
    return depthwise_problem(
        tuple(input_shape),
        layer.compute_dtype,
        (*layer.kernel_size, channels, layer.depth_multiplier),
        layer.strides,
        layer.padding,
        layer.data_format,
        layer.dilation_rate,
    )


def check_plan(layer, input_shape, plan: str | Plan) -> None:
    """Checks a plan against the channels of a layer's input.

    Raises:
        ValueError: if a partition size does not fit them.
    """
    if isinstance(plan, Plan):
        plan.check(problem_of(layer, input_shape))


@stands_for(keras.layers.DepthwiseConv1D)
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
        *args, **kwargs: the stock layer's.

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


@stands_for(keras.layers.DepthwiseConv2D)
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
        *args, **kwargs: the stock layer's.

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
