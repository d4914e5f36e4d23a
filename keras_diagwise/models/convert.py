"""Converts a whole model to the package's layers, and back."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping

import keras

from keras_diagwise import backends
from keras_diagwise._terminal import standard_console
from keras_diagwise.layers.base import (
    STOCK_TO_OURS,
    built_input_shape,
    check_plans,
    ours_for,
)
from keras_diagwise.models.arguments import check_model
from keras_diagwise.models.copy import duplicated
from keras_diagwise.models.summary import summary
from keras_diagwise.models.survey import (
    Skipped,
    is_one_of_ours,
    skipped_lines,
    survey,
)
from keras_diagwise.models.swap import swap, swapped
from keras_diagwise.models.variants import as_stock, by_plans
from keras_diagwise.plan import AUTO, Plan, standardize_plan

Filters = str | Iterable[str] | Callable[[keras.layers.Layer], bool] | None


def convert(
    model: keras.Model,
    *,
    filters: Filters = None,
    plan: str | Mapping[str, str] | Plan = AUTO,
    copy: bool = False,
    verbose: int = 1,
) -> keras.Model:
    """Converts a model's depthwise, separable and grouped convolutions to run by plan.

    Dense convolutions are converted where they have an algorithm other than stock's:
    on a CPU under JAX, and under TensorFlow's `jit_compile=True`; dense layers over
    pixels or the steps of a sequence under JAX alone.

    Each stock layer becomes the package's layer that replaces it, at any depth: in
    models and layers, their lists and dictionaries, and wrappers. Weights, names,
    sharing, trainable flags, seeds, optimizer and compile state stay, and the model's
    weight files stay valid. A layer is left alone if it is a dense convolution
    elsewhere, a subclass, quantized, has LoRA enabled, or its `call` was replaced.

    Args:
        model: any Keras model, compiled or not, trained or not. It is changed in
            place, as by Keras's own `quantize`.
        filters: layers to convert: one or several regular expressions, of which one
            must match in the layer's path (names of the enclosing layers and its own,
            joined by slashes), or a callable from a layer to a bool. `None` takes all.
        plan: the plan of the layers: `"auto"`, an algorithm for all three passes, or
            a `keras_diagwise.Plan`.
        copy: `True` leaves `model` unchanged and converts a duplicate of it, equal in
            everything and sharing nothing mutable.
        verbose: 1 prints a summary with a line for each group of layers alike, 2 with
            a line for each layer, 0 prints nothing.

    Returns:
        `model`, converted; or its duplicate under `copy=True`.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if `plan` or `filters` are not valid, a partition size does
            not fit a layer, or, under `copy=True`, a part of the model can't be
            duplicated. After this or any other error, except one in printing, the
            model is unchanged.

    Example:

    >>> model = keras.applications.MobileNetV2(weights=None)
    >>> model = keras_diagwise.convert(model)
    """
    check_model(model)
    plan = standardize_plan(plan)
    found = survey(model, standardize_filters(filters), plan)
    for layer in found.chosen.values():
        if layer.built:
            plans = ours_for(layer).plans_for(layer, plan)
            check_plans(layer, built_input_shape(layer), plans)
    converted = duplicated(model) if copy else model
    places = backends.keras_internals.layers_with_paths(converted)
    layers = [places[i][1] for i in found.chosen]
    if not layers:
        warnings.warn(nothing_found(model, found.skipped), stacklevel=2)
        return converted
    changes = [by_plans(each, ours_for(each).plans_for(each, plan)) for each in layers]
    with swapped(converted, changes):
        report = summary(converted) if verbose else None
    if report is not None:
        standard_console().print(report.detailed() if verbose > 1 else report)
    return converted


def nothing_found(model: keras.Model, skipped: Iterable[Skipped]) -> str:
    """Warning for a model without layers to convert."""
    classes = ", ".join(stock.__name__ for stock in STOCK_TO_OURS)
    text = (
        f"keras_diagwise.convert found nothing to convert in {model.name!r}: no layer "
        f"that passes `filters` is exactly one of {classes} (not a subclass) and has "
        "several groups. Dense layers and convolutions count only where they have an "
        "algorithm besides the stock one."
    )
    return " ".join([text, *skipped_lines(skipped)])


def revert(model: keras.Model, *, copy: bool = False) -> keras.Model:
    """Reverts the package's layers of a model to stock ones.

    Args:
        model: a model that `convert` returned, or that holds layers of the
            package otherwise. It is changed in place.
        copy: `True` leaves `model` unchanged and reverts a duplicate of it.

    Returns:
        `model`, with stock layers only and its weights bit-equal; or its duplicate
        under `copy=True`.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if a part of it can't be duplicated under `copy=True`.
    """
    check_model(model)
    reverted = duplicated(model) if copy else model
    layers = [
        layer
        for layer in backends.keras_internals.flatten_layers(reverted)
        if is_one_of_ours(layer)
    ]
    swap(reverted, [as_stock(layer) for layer in layers])
    return reverted


def standardize_filters(
    filters: Filters,
) -> Callable[[str, keras.layers.Layer], bool]:
    """`filters` as a predicate on a path and its layer."""
    if filters is None:
        return lambda path, layer: True
    if callable(filters):
        return lambda path, layer: filters(layer)
    try:
        patterns = [filters] if isinstance(filters, str) else list(filters)
        compiled = [re.compile(pattern) for pattern in patterns]
    except (re.error, TypeError) as error:
        raise ValueError(
            "`filters` must be a regular expression, several, or a callable from a "
            f"layer to a bool. Received: filters={filters!r} ({error})"
        ) from None
    return lambda path, layer: any(pattern.search(path) for pattern in compiled)
