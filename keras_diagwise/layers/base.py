"""The base of the package's layers: a plan, and the stock class that each replaces."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import ClassVar

import keras
from keras import ops

from keras_diagwise import backends
from keras_diagwise.algorithms import Matmul
from keras_diagwise.backends import keras_internals
from keras_diagwise.plan import (
    AUTO,
    NATIVE,
    Plan,
    is_unknown,
    plan_to_config,
    standardize_plan,
)
from keras_diagwise.problem import Problem
from keras_diagwise.version import __version__

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
    PLANS: ClassVar[tuple[str, ...]] = ("plan",)
    """Names of the attributes that hold a plan, one for each convolution."""

    def __init__(
        self, *args, plan: str | Mapping[str, str] | Plan = AUTO, **kwargs
    ) -> None:
        plan = standardize_plan(plan)  # before anything is built
        super().__init__(*args, **kwargs)
        self.plan = plan

    def __setattr__(self, name: str, value) -> None:
        """Standardizes a plan that is set by hand, and checks it against the channels,
        as the constructor and `build` do."""
        if name in self.PLANS:
            value = standardize_plan(value)
            is_built = getattr(self, "built", False) and self.weights
            if isinstance(value, Plan) and is_built:
                check_plans(self, built_input_shape(self), {name: value})
        super().__setattr__(name, value)

    @staticmethod
    def plans_for(layer, plan: str | Plan) -> dict[str, str | Plan]:
        """The plan of each convolution in a layer of this class or the stock one, by
        the attribute that holds it, if a model is converted with this plan."""
        return {"plan": plan}

    @staticmethod
    def problems_of(layer, input_shape) -> dict[str, Problem]:
        """The problem of each convolution in a layer of this class or the stock one,
        built or not, by the attribute that holds its plan.

        Args:
            layer: the layer.
            input_shape: the shape of its input, `None` where unknown.
        """
        raise NotImplementedError

    @staticmethod
    def input_channels(layer) -> int:
        """The input channels of a built layer of this class or the stock one."""
        raise NotImplementedError

    @staticmethod
    def shape_of_channels(layer, channels: int) -> tuple:
        """The shape of its input with these channels and all else unknown."""
        spatial = (None,) * layer.rank
        if layer.data_format == "channels_last":
            return (None, *spatial, channels)
        return (None, channels, *spatial)

    @staticmethod
    def is_candidate(layer, dense: bool) -> bool:
        """Whether such a layer, or one of a subclass of the stock one, has a
        convolution: if not, no conversion mentions it.

        Args:
            layer: the layer.
            dense: whether dense convolutions are replaced.
        """
        return True

    def compute_output_shape(self, input_shape):
        """The stock layer's shape. `build` asks for it too, so a plan that does not fit
        the channels is refused before anything is built."""
        check_plans(self, input_shape, plans_of(self))
        return super().compute_output_shape(input_shape)

    def add_weight(self, *args, **kwargs):
        """The stock layer's weight. A plan that does not fit the channels is refused
        here if `build` did not ask for the output shape."""
        channels = keras_internals.channels_built_for(self)
        if channels is not None:
            shape = self.shape_of_channels(self, channels)
            check_plans(self, shape, plans_of(self))
        return super().add_weight(*args, **kwargs)

    @classmethod
    def from_config(cls, config):
        """The stock layer's, with `"auto"`, and a warning, in place of a plan that this
        version of the package does not know, as in a file of a later one."""
        known = dict(config)
        for name in cls.PLANS:
            plan = config.get(name, AUTO)
            if is_unknown(plan):
                known[name] = AUTO
                warnings.warn(
                    f"keras_diagwise {__version__} does not know the plan of "
                    f"{config.get('name')!r}, which is 'auto' now. A later version "
                    f"may. Received: {name}={plan!r}",
                    stacklevel=2,
                )
        return super().from_config(known)

    def get_config(self) -> dict:
        """The stock layer's configuration plus each plan."""
        plans = {name: plan_to_config(each) for name, each in plans_of(self).items()}
        return {**super().get_config(), **plans}


def dtype_of(layer) -> str:
    """The dtype that a layer computes in."""
    return backends.active.canonical_dtype(layer.compute_dtype)


def plan_of_dense(plan: str | Plan) -> str | Plan:
    """The plan of a dense convolution in a model that is converted with this plan:
    native under one that is for other convolutions only."""
    is_for_dense = not isinstance(plan, Plan) or plan.has(Matmul)
    return plan if is_for_dense else NATIVE


def ours_for(layer) -> type[Diagonalwise]:
    """The package's class for a layer of a stock class or already of the package."""
    return STOCK_TO_OURS[
        layer.stock if isinstance(layer, Diagonalwise) else type(layer)
    ]


def plans_of(layer: Diagonalwise) -> dict[str, str | Plan]:
    """The plan of each convolution in a layer, by the attribute that holds it."""
    return {name: getattr(layer, name) for name in layer.PLANS}


def problems_of(layer, input_shape) -> dict[str, Problem]:
    """The problem of each convolution in a layer, of a stock class or the package's,
    built or not, by the attribute that holds its plan.

    Args:
        layer: the layer.
        input_shape: the shape of its input, `None` where unknown.

    Returns:
        Nothing if the channels are unknown.
    """
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    if input_shape[-1 if last else 1] is None:
        return {}
    return ours_for(layer).problems_of(layer, input_shape)


def built_input_shape(layer) -> tuple:
    """The shape of a built layer's input, of which only the channels are known."""
    ours = ours_for(layer)
    return ours.shape_of_channels(layer, ours.input_channels(layer))


def check_plans(layer, input_shape, plans: Mapping[str, str | Plan]) -> None:
    """Checks plans against the channels of a layer.

    Args:
        layer: the layer.
        input_shape: the shape of its input, `None` where unknown.
        plans: plans by the attribute that holds each; all of the layer's, or some.

    Raises:
        ValueError: if a partition size does not fit them.
    """
    if any(isinstance(plan, Plan) for plan in plans.values()):
        for name, problem in problems_of(layer, input_shape).items():
            plan = plans.get(name, AUTO)
            if isinstance(plan, Plan):
                plan.check(problem)


def with_bias(layer, outputs):
    """A layer's outputs: those of its convolution with bias and activation."""
    if layer.use_bias:
        shape = [1] * (layer.rank + 2)
        shape[-1 if layer.data_format == "channels_last" else 1] = layer.bias.shape[0]
        outputs = ops.add(outputs, ops.reshape(layer.bias, shape))
    if layer.activation is not None:
        return layer.activation(outputs)
    return outputs


def with_plans(signature: inspect.Signature, names: Iterable[str]) -> inspect.Signature:
    """A stock layer's signature plus arguments for plans."""
    *named, rest = signature.parameters.values()
    plans = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=AUTO)
        for name in names
    ]
    return signature.replace(parameters=[*named, *plans, rest])


def replaces(stock: type[keras.layers.Layer]):
    """Class decorator: makes a class replace `stock` in files and conversions.

    Keras derives the paths in weight files and automatic names from `__name__`, so that
    stays the stock one; the class is registered under its `__qualname__`.
    """

    def decorate(ours):
        ours.stock = stock
        ours.__signature__ = with_plans(inspect.signature(stock), ours.PLANS)
        ours.__name__ = stock.__name__
        STOCK_TO_OURS[stock] = ours
        return keras.saving.register_keras_serializable(PACKAGE, ours.__qualname__)(
            ours
        )

    return decorate
