"""A whole model to the package's layers, and back."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping

import keras
import rich.console

from keras_diagwise import backends
from keras_diagwise.layers.family import (
    FAMILY,
    built_input_shape,
    check_plan,
    ours_for,
)
from keras_diagwise.models.copy import faithful_copy
from keras_diagwise.models.summary import summary
from keras_diagwise.models.survey import (
    Skipped,
    is_one_of_ours,
    skipped_lines,
    survey,
)
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
    """Makes the depthwise, separable and grouped convolutions of a model run by a
    plan.

    Each stock layer becomes the package's layer that stands for it, at whatever depth
    it is: in models and layers, their lists and dictionaries, and wrappers. Weights,
    names, sharing, trainable flags, seeds, optimizer and compile state stay, and
    so do the model's weight files. A layer is left alone if it has one group, is of
    a subclass, is quantized or has LoRA enabled, or its `call` was replaced.

    Args:
        model: any Keras model, compiled or not, trained or not.
        filters: which layers: a regular expression or several, of which one must
            be found in the layer's path (its own name, behind those of the layers
            that it stands in, joined by slashes), or a callable from a layer to a
            bool. `None` takes all.
        plan: what the layers shall run: `"auto"`, an algorithm for all three
            passes, or a `keras_diagwise.Plan`.
        inplace: `True` changes `model` itself, `False` a faithful copy of it.
        verbose: 1 prints what became of the layers, those alike in one line; 2 a
            line for each; 0 nothing.

    Returns:
        The converted model: `model` itself under `inplace=True`.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if `plan` or `filters` are not valid, a partition size does
            not fit a layer, or the model can't be copied faithfully. The model
            is then as it was, as it is after any other error.

    Example:

    >>> model = keras.applications.MobileNetV2(weights=None)
    >>> faster = keras_diagwise.convert(model)
    """
    check_model(model)
    plan = standardize_plan(plan)
    found = survey(model, standardize_filters(filters))
    for layer in found.chosen.values():
        if layer.built:
            check_plan(layer, built_input_shape(layer), plan)
    converted = model if inplace else faithful_copy(model)
    places = backends.keras_internals.layers_with_paths(converted)
    layers = [places[i][1] for i in found.chosen]
    if not layers:
        warnings.warn(nothing_found(model, found.skipped), stacklevel=2)
        return converted
    with swapped(converted, [(layer, ours_for(layer), plan) for layer in layers]):
        if verbose:
            report = summary(converted)
            rich.console.Console().print(report.detailed() if verbose > 1 else report)
    return converted


def nothing_found(model: keras.Model, skipped: Iterable[Skipped]) -> str:
    """What is said if a model has nothing to convert."""
    classes = ", ".join(stock.__name__ for stock in FAMILY)
    text = (
        f"keras_diagwise.convert found nothing to convert in {model.name!r}: no layer "
        f"is exactly one of {classes}, with several groups if it can have them, and "
        "passes `filters`."
    )
    return " ".join([text, *skipped_lines(skipped)])


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
        if is_one_of_ours(layer)
    ]
    swap(reverted, [(layer, layer.stock, None) for layer in layers])
    return reverted


def check_model(model) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a keras.Model. Received: model={model!r} of type "
            f"{type(model).__name__}"
        )


def standardize_filters(
    filters: Filters,
) -> Callable[[str, keras.layers.Layer], bool]:
    """`filters` as a question about a path and the layer there."""
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


def swap(model, changes: list[tuple]) -> None:
    """Gives layers other classes and plans, all of them or none."""
    with swapped(model, changes):
        pass


@contextlib.contextmanager
def swapped(model, changes: list[tuple]) -> Iterator[None]:
    """The same, to stay if nothing fails inside the context either."""
    before = [
        (layer, type(layer), getattr(layer, "plan", None)) for layer, *_ in changes
    ]
    try:
        for change in changes:
            assign(*change)
        forget_compiled(model)
        yield
    except BaseException:
        for change in before:
            assign(*change)
        forget_compiled(model)
        raise


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
            for name in ("train_step", "test_step"):
                step = getattr(layer, name, None)  # there if the backend trains
                backends.active.forget_compiled(step)
            for name in ("train", "test", "predict"):
                if getattr(layer, f"{name}_function", None) is not None:
                    # Made anew at once: a `fit` that is running would miss it.
                    getattr(layer, f"make_{name}_function")(force=True)
