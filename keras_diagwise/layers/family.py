"""What the layers of the package have in common: a plan, and a stock class that
each stands for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import keras

from keras_diagwise.planning.plan import AUTO, Plan, plan_to_config, standardize_plan

PACKAGE = "keras_diagwise"

FAMILY: dict[type[keras.layers.Layer], type[keras.layers.Layer]] = {}
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

    def get_config(self) -> dict:
        """The stock layer's configuration, and `plan`."""
        return {**super().get_config(), "plan": plan_to_config(self.plan)}


def with_plan(signature: inspect.Signature) -> inspect.Signature:
    """A stock layer's signature, and `plan`."""
    *named, rest = signature.parameters.values()
    plan = inspect.Parameter("plan", inspect.Parameter.KEYWORD_ONLY, default=AUTO)
    return signature.replace(parameters=[*named, plan, rest])


def stands_for(stock: type[keras.layers.Layer]):
    """Makes a class stand for `stock` in files and conversions.

    Keras derives the paths in weight files and automatic names from `__name__`,
    so it stays the stock one; the class is known as its `__qualname__`.
    """

    def decorate(ours):
        ours.stock = stock
        ours.__signature__ = with_plan(inspect.signature(stock))
        ours.__name__ = stock.__name__
        FAMILY[stock] = ours
        return keras.saving.register_keras_serializable(PACKAGE, ours.__qualname__)(
            ours
        )

    return decorate
