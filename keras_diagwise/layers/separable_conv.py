"""Separable convolution layers, 1-D and 2-D."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from keras_diagwise.layers.base import (
    Diagonalwise,
    dtype_of,
    plan_of_dense,
    replaces,
    with_bias,
)
from keras_diagwise.layers.depthwise_conv import depthwise_problem_of
from keras_diagwise.ops import separable_conv
from keras_diagwise.plan import AUTO, Plan, standardize_plan
from keras_diagwise.planning.call import grouped_problem, is_left_to_stock
from keras_diagwise.problem import Problem


class DiagonalwiseSeparableConv(Diagonalwise):
    """The convolutions of the 1-D and 2-D layers.

    Args:
        plan: plan of the depthwise convolution: `"auto"`, an algorithm for all three
            passes, or a `keras_diagwise.Plan`.
        pointwise_plan: plan of the pointwise convolution, which is dense. By default it
            is `plan` if that is `"auto"` or has `"matmul"`, else `"native"`.
    """

    PLANS = ("plan", "pointwise_plan")

    def __init__(
        self,
        *args,
        plan: str | Mapping[str, str] | Plan = AUTO,
        pointwise_plan: str | Mapping[str, str] | Plan | None = None,
        **kwargs,
    ) -> None:
        if pointwise_plan is None:
            pointwise_plan = plan_of_dense(standardize_plan(plan))
        pointwise_plan = standardize_plan(pointwise_plan)
        super().__init__(*args, plan=plan, **kwargs)
        self.pointwise_plan = pointwise_plan

    @staticmethod
    def plans_for(layer, plan):
        return {"plan": plan, "pointwise_plan": plan_of_dense(plan)}

    def call(self, inputs):
        outputs = separable_conv(
            inputs,
            self.depthwise_kernel,
            self.pointwise_kernel,
            self.strides,
            self.padding,
            self.data_format,
            self.dilation_rate,
            self.plan,
            self.pointwise_plan,
        )
        return with_bias(self, outputs)

    @staticmethod
    def problems_of(layer, input_shape) -> dict[str, Problem]:
        depthwise = depthwise_problem_of(layer, input_shape)
        pointwise = grouped_problem(
            depthwise.output_shape(),
            dtype_of(layer),
            (*(1,) * layer.rank, depthwise.filters, layer.filters),
            1,
            "valid",
            layer.data_format,
            1,
        )
        if is_left_to_stock(pointwise):
            return {"plan": depthwise}
        return {"plan": depthwise, "pointwise_plan": pointwise}

    @staticmethod
    def input_channels(layer) -> int:
        return layer.depthwise_kernel.shape[-2]


@replaces(keras.layers.SeparableConv1D)
class DiagonalwiseSeparableConv1D(
    DiagonalwiseSeparableConv, keras.layers.SeparableConv1D
):
    """`keras.layers.SeparableConv1D`, each convolution by whichever algorithm is
    fastest here.

    It takes the stock layer's arguments, has its weights, and gives its numbers
    up to rounding.

    Args:
        filters: output channels.
        kernel_size: taps of the depthwise kernel.
        plan: plan of the depthwise convolution: `"auto"`, an algorithm for all three
            passes of training (`"native"`, `"direct"`, `"diagonal:32"`, …), or a
            `keras_diagwise.Plan`.
        pointwise_plan: plan of the pointwise convolution: `"auto"`, `"native"`,
            `"matmul"`, or a `keras_diagwise.Plan`.
        *args, **kwargs: the stock layer's arguments.

    Input shape:
        `(batch, steps, channels)`, or `(batch, channels, steps)` under
        `data_format="channels_first"`.

    Output shape:
        `(batch, new_steps, filters)`, or with the channels first.

    Example:

    >>> x = np.random.rand(4, 10, 12)
    >>> DiagonalwiseSeparableConv1D(24, 3, plan="direct")(x).shape
    (4, 8, 24)
    """


@replaces(keras.layers.SeparableConv2D)
class DiagonalwiseSeparableConv2D(
    DiagonalwiseSeparableConv, keras.layers.SeparableConv2D
):
    """`keras.layers.SeparableConv2D`, each convolution by whichever algorithm is
    fastest here.

    It takes the stock layer's arguments, has its weights, and gives its numbers
    up to rounding.

    Args:
        filters: output channels.
        kernel_size: taps of the depthwise kernel, one number or two.
        plan: plan of the depthwise convolution: `"auto"`, an algorithm for all three
            passes of training (`"native"`, `"direct"`, `"diagonal:32"`, …), or a
            `keras_diagwise.Plan`.
        pointwise_plan: plan of the pointwise convolution: `"auto"`, `"native"`,
            `"matmul"`, or a `keras_diagwise.Plan`.
        *args, **kwargs: the stock layer's arguments.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)`
        under `data_format="channels_first"`.

    Output shape:
        `(batch, new_height, new_width, filters)`, or with the channels first.

    Example:

    >>> x = np.random.rand(4, 10, 10, 12)
    >>> DiagonalwiseSeparableConv2D(24, 3, plan="direct")(x).shape
    (4, 8, 8, 24)
    """
