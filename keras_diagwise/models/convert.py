"""A whole model to the package's layers, and back."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping

import keras

from keras_diagwise import backends
from keras_diagwise.layers.depthwise_conv import check_plan
from keras_diagwise.layers.family import FAMILY, Diagonalwise
from keras_diagwise.models.copy import faithful_copy
from keras_diagwise.planning.plan import AUTO, Plan, standardize_plan

Filters = str | Iterable[str] | Callable[[keras.layers.Layer], bool] | None


def convert(
    model: keras.Model,
    *,
    filters: Filters = None,
    plan: str | Mapping[str, str] | Plan = AUTO,
    inplace: bool = False,
    verbose: int = 1,
) -> keras.Model:
    """Makes the depthwise convolutions of a model run by a plan.

    Each stock layer becomes the package's layer that stands for it. Weights,
    names, sharing, trainable flags, seeds, optimizer and compile state stay, and
    so do the model's weight files.

    Args:
        model: any Keras model, compiled or not, trained or not.
        filters: which layers: a regular expression or several, of which one must
            be found in the layer's name, or a callable from a layer to a bool.
            `None` takes all.
        plan: what the layers shall run: `"auto"`, an algorithm for all three
            passes, or a `keras_diagwise.Plan`.
        inplace: `True` changes `model` itself, `False` a faithful copy of it.
        verbose: 1 prints one line, 0 none.

    Returns:
        The converted model: `model` itself under `inplace=True`.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if `plan` or `filters` are not valid, a partition size does
            not fit a layer, or the model can't be copied faithfully. The model
            is then as it was.

    Example:

    >>> model = keras.applications.MobileNetV2(weights=None)
    >>> faster = keras_diagwise.convert(model)
    """
    check_model(model)
    plan = standardize_plan(plan)
    accept = standardize_filters(filters)
    chosen = convertible(model, accept)
    for layer in chosen.values():
        if layer.built:
            check_plan(layer, built_input_shape(layer), plan)
    converted = model if inplace else faithful_copy(model)
    layers = [backends.keras_internals.flatten_layers(converted)[i] for i in chosen]
    if not layers:
        warnings.warn(
            f"keras_diagwise.convert found nothing to convert in {model.name!r}: no "
            f"layer is one of {', '.join(stock.__name__ for stock in FAMILY)} and "
            "passes `filters`.",
            stacklevel=2,
        )
        return converted
    swap(converted, [(layer, ours_for(layer), plan) for layer in layers])
    if verbose:
        count = f"{len(layers)} layer{'s' if len(layers) > 1 else ''}"
        print(f"keras_diagwise: {count} of {converted.name!r} now run by plan {plan}")
    return converted


def revert(model: keras.Model, *, inplace: bool = False) -> keras.Model:
    """The way back: makes the package's layers of a model stock ones again.

    Args:
        model: a model that `convert` returned, or that holds layers of the
            package otherwise.
        inplace: `True` changes `model` itself, `False` a faithful copy of it.

    Returns:
        The model with stock layers only, its weights bit-equal.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if it can't be copied faithfully.
    """
    check_model(model)
    reverted = model if inplace else faithful_copy(model)
    layers = [
        layer
        for layer in backends.keras_internals.flatten_layers(reverted)
        if type(layer) in FAMILY.values()
    ]
    swap(reverted, [(layer, layer.stock, None) for layer in layers])
    return reverted


def check_model(model) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a keras.Model. Received: model={model!r} of type "
            f"{type(model).__name__}"
        )


def standardize_filters(filters: Filters) -> Callable[[keras.layers.Layer], bool]:
    """`filters` as a question about a layer."""
    if filters is None:
        return lambda layer: True
    if callable(filters):
        return filters
    try:
        patterns = [filters] if isinstance(filters, str) else list(filters)
        compiled = [re.compile(pattern) for pattern in patterns]
    except (re.error, TypeError) as error:
        raise ValueError(
            "`filters` must be a regular expression, several, or a callable from a "
            f"layer to a bool. Received: filters={filters!r} ({error})"
        ) from None
    return lambda layer: any(pattern.search(layer.name) for pattern in compiled)


def ours_for(layer) -> type[keras.layers.Layer]:
    """The package's class for a layer that is stock, or already ours."""
    return FAMILY[layer.stock if isinstance(layer, Diagonalwise) else type(layer)]


def convertible(model, accept) -> dict[int, keras.layers.Layer]:
    """The layers that are exactly of a stock class, or of ours, and accepted, by
    their place among the model's layers."""
    classes = {*FAMILY, *FAMILY.values()}
    layers = enumerate(backends.keras_internals.flatten_layers(model))
    return {i: layer for i, layer in layers if type(layer) in classes and accept(layer)}


def built_input_shape(layer) -> tuple:
    """The shape of a built layer's input, so far as the layer knows it."""
    channels, spatial = layer.kernel.shape[-2], (None,) * layer.rank
    if layer.data_format == "channels_last":
        return (None, *spatial, channels)
    return (None, channels, *spatial)


def swap(model, changes: list[tuple]) -> None:
    """Gives layers other classes and plans, all of them or none."""
    before = [
        (layer, type(layer), getattr(layer, "plan", None)) for layer, *_ in changes
    ]
    try:
        for change in changes:
            assign(*change)
    except BaseException:
        for change in before:
            assign(*change)
        raise
    forget_compiled(model)


def assign(layer, new_class, plan) -> None:
    layer.__class__ = new_class
    if plan is not None:
        layer.plan = plan
    elif hasattr(layer, "plan"):
        del layer.plan


def forget_compiled(model) -> None:
    """Makes a model's next step trace anew: a compiled one keeps its plans."""
    for layer in backends.keras_internals.flatten_layers(model):
        if isinstance(layer, keras.Model):
            for step in (layer.train_step, layer.test_step):
                backends.active.forget_compiled(step)
            for name in ("train", "test", "predict"):
                if getattr(layer, f"{name}_function", None) is not None:
                    # Made anew at once: a `fit` that is running would miss it.
                    getattr(layer, f"make_{name}_function")(force=True)
