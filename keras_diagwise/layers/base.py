"""What the layers of the package have in common: a plan, and a stock class that
each replaces."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import keras
from keras import ops

from keras_diagwise.plan import AUTO, Plan, plan_to_config, standardize_plan
from keras_diagwise.problem import Problem

PACKAGE = "keras_diagwise"

STOCK_TO_OURS: dict[type[keras.layers.Layer], type[Diagonalwise]] = {}
"""The package's class for each stock class."""


class Diagonalwise(keras.layers.Layer):
    """A stock layer whose convolution runs by a plan.

    Args:
        plan: `"auto"`, an algorithm for all three passes, or a
            `keras_diagwise.Plan`.
    """

    stock: type[keras.layers.Layer]

    def __init__(
        self, *args, plan: str | Mapping[str, str] | Plan = AUTO, **kwargs
    ) -> None:
        plan = standardize_plan(plan)
        super().__init__(*args, **kwargs)
        self.plan = plan

    @staticmethod
    def problem_of(layer, input_shape) -> Problem:
        """The problem of a layer of this class or of the stock one, built or not.

        Args:
            layer: the layer.
            input_shape: the shape of its input, with `None` for what is unknown.
        """
        raise NotImplementedError

    @staticmethod
    def input_channels(layer) -> int:
        """The channels of the input of such a layer, built."""
        raise NotImplementedError

    def compute_output_shape(self, input_shape):
        """The stock layer's; `build` asks for it too, so a plan that does not fit
        the channels is refused before anything is built."""
        check_plan(self, input_shape, self.plan)
        return super().compute_output_shape(input_shape)

    def get_config(self) -> dict:
        """The stock layer's configuration, and `plan`."""
        return {**super().get_config(), "plan": plan_to_config(self.plan)}


def ours_for(layer) -> type[Diagonalwise]:
    """The package's class for a layer that is stock, or already ours."""
    return STOCK_TO_OURS[
        layer.stock if isinstance(layer, Diagonalwise) else type(layer)
    ]


def problem_of(layer, input_shape) -> Problem:
    """The problem of a layer, stock or ours, built or not.

    Args:
        layer: the layer.
        input_shape: the shape of its input, with `None` for what is unknown.
    """
    return ours_for(layer).problem_of(layer, input_shape)


def built_input_shape(layer) -> tuple:
    """The shape of a built layer's input, so far as the layer knows it."""
    channels, spatial = ours_for(layer).input_channels(layer), (None,) * layer.rank
    if layer.data_format == "channels_last":
        return (None, *spatial, channels)
    return (None, channels, *spatial)


def check_plan(layer, input_shape, plan: str | Plan) -> None:
    """Checks a plan against the channels of a layer's input.

    Raises:
        ValueError: if a partition size does not fit them.
    """
    if isinstance(plan, Plan):
        plan.check(problem_of(layer, input_shape))


def with_bias(layer, outputs):
    """A layer's outputs from its convolution's: with its bias and activation."""
    if layer.use_bias:
        shape = [1] * (layer.rank + 2)
        shape[-1 if layer.data_format == "channels_last" else 1] = layer.bias.shape[0]
        outputs = ops.add(outputs, ops.reshape(layer.bias, shape))
    if layer.activation is not None:
        return layer.activation(outputs)
    return outputs


def with_plan(signature: inspect.Signature) -> inspect.Signature:
    """A stock layer's signature, and `plan`."""
    *named, rest = signature.parameters.values()
    plan = inspect.Parameter("plan", inspect.Parameter.KEYWORD_ONLY, default=AUTO)
    return signature.replace(parameters=[*named, plan, rest])


def replaces(stock: type[keras.layers.Layer]):
    """Makes a class replace `stock` in files and conversions.

    Keras derives the paths in weight files and automatic names from `__name__`,
    so it stays the stock one; the class is known as its `__qualname__`.
    """

    def decorate(ours):
        ours.stock = stock
        ours.__signature__ = with_plan(inspect.signature(stock))
        ours.__name__ = stock.__name__
        STOCK_TO_OURS[stock] = ours
        return keras.saving.register_keras_serializable(PACKAGE, ours.__qualname__)(
            ours
        )

    return decorate
