"""Grouped convolution layers, 1-D to 3-D."""

from __future__ import annotations

import keras
from keras import ops

from keras_diagwise.layers.base import Diagonalwise, dtype_of, plan_of_dense, replaces
from keras_diagwise.ops import conv
from keras_diagwise.planning.call import grouped_problem, is_left_to_stock
from keras_diagwise.problem import Problem


class DiagonalwiseConv(Diagonalwise):
    """The convolution of the 1-D, 2-D and 3-D layers."""

    def convolution_op(self, inputs, kernel):
        padding = self.padding
        if padding == "causal":
            inputs, padding = ops.pad(inputs, causal_widths(self)), "valid"
        return conv(
            inputs,
            kernel,
            self.strides,
            padding,
            self.data_format,
            self.dilation_rate,
            plan=self.plan,
        )

    @staticmethod
    def problems_of(layer, input_shape) -> dict[str, Problem]:
        shape, padding = list(input_shape), layer.padding
        last = layer.data_format == "channels_last"
        if padding == "causal":
            steps, padding = (1 if last else 2), "valid"
            if shape[steps] is not None:
                shape[steps] += sum(causal_widths(layer)[steps])
        channels = shape[-1 if last else 1]
        problem = grouped_problem(
            tuple(shape),
            dtype_of(layer),
            (*layer.kernel_size, channels // layer.groups, layer.filters),
            layer.strides,
            padding,
            layer.data_format,
            layer.dilation_rate,
        )
        return {} if is_left_to_stock(problem) else {"plan": problem}

    @staticmethod
    def plans_for(layer, plan):
        return {"plan": plan_of_dense(plan) if layer.groups == 1 else plan}

    @staticmethod
    def input_channels(layer) -> int:
        return layer.kernel.shape[-2] * layer.groups


def causal_widths(layer) -> list[tuple[int, int]]:
    """The zeros around the input of a 1-D layer with causal padding."""
    before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
    widths = [(0, 0)] * 3
    widths[1 if layer.data_format == "channels_last" else 2] = (before, 0)
    return widths


@replaces(keras.layers.Conv1D)
class DiagonalwiseConv1D(DiagonalwiseConv, keras.layers.Conv1D):
    """`keras.layers.Conv1D` with groups, by whichever algorithm is fastest here.

    It takes the stock layer's arguments, has its weights, and gives its numbers
    up to rounding. With one group it is dense: it runs by matrix products where these
    are faster, and otherwise as the stock layer.

    Args:
        filters: output channels, a multiple of the groups.
        kernel_size: taps of the kernel.
        plan: `"auto"`, an algorithm for all three passes of training
            (`"native"`, `"direct"`, `"diagonal:32"`, …), or a
            `keras_diagwise.Plan`.
        *args, **kwargs: the stock layer's arguments.

    Input shape:
        `(batch, steps, channels)`, or `(batch, channels, steps)` under
        `data_format="channels_first"`.

    Output shape:
        `(batch, new_steps, filters)`, or with the channels first.

    Example:

    >>> x = np.random.rand(4, 10, 12)
    >>> DiagonalwiseConv1D(24, 3, groups=6, padding="causal")(x).shape
    (4, 10, 24)
    """

    def call(self, inputs):
        """The call of the other ranks, which uses `convolution_op`: the stock 1-D layer
        pads and convolves by itself (seen in Keras 3.15)."""
        return super(keras.layers.Conv1D, self).call(inputs)


@replaces(keras.layers.Conv2D)
class DiagonalwiseConv2D(DiagonalwiseConv, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with groups, by whichever algorithm is fastest here.

    It takes the stock layer's arguments, has its weights, and gives its numbers
    up to rounding. With one group it is dense: it runs by matrix products where these
    are faster, and otherwise as the stock layer.

    Args:
        filters: output channels, a multiple of the groups.
        kernel_size: taps of the kernel, one number or two.
        plan: `"auto"`, an algorithm for all three passes of training
            (`"native"`, `"direct"`, `"diagonal:32"`, …), or a
            `keras_diagwise.Plan`.
        *args, **kwargs: the stock layer's arguments.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)`
        under `data_format="channels_first"`.

    Output shape:
        `(batch, new_height, new_width, filters)`, or with the channels first.

    Example:

    >>> x = np.random.rand(4, 10, 10, 12)
    >>> DiagonalwiseConv2D(24, 3, groups=6)(x).shape
    (4, 8, 8, 24)
    """


@replaces(keras.layers.Conv3D)
class DiagonalwiseConv3D(DiagonalwiseConv, keras.layers.Conv3D):
    """`keras.layers.Conv3D` with groups, by whichever algorithm is fastest here.

    It takes the stock layer's arguments, has its weights, and gives its numbers
    up to rounding. With one group it is dense: it runs by matrix products where these
    are faster, and otherwise as the stock layer.

    Args:
        filters: output channels, a multiple of the groups.
        kernel_size: taps of the kernel, one number or three.
        plan: `"auto"`, an algorithm for all three passes of training
            (`"native"`, `"direct"`, `"diagonal:32"`, …), or a
            `keras_diagwise.Plan`.
        *args, **kwargs: the stock layer's arguments.

    Input shape:
        `(batch, *spatial_shape, channels)`, or `(batch, channels, *spatial_shape)`
        under `data_format="channels_first"`, with three spatial axes.

    Output shape:
        `(batch, *new_spatial_shape, filters)`, or with the channels first.

    Example:

    >>> x = np.random.rand(2, 6, 6, 6, 12)
    >>> DiagonalwiseConv3D(24, 3, groups=6)(x).shape
    (2, 4, 4, 4, 24)
    """
