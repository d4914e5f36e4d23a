"""Survey of a model: the layers to convert, and why others are left alone."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras

from keras_diagwise import backends
from keras_diagwise.algorithms import Matmul
from keras_diagwise.layers.base import STOCK_TO_OURS
from keras_diagwise.models.environment import environment_of
from keras_diagwise.models.object_graph import COMPILED
from keras_diagwise.plan import AUTO, Plan
from keras_diagwise.planning.dispatch import serves_dense

REASONS = {
    "one group": "it is a dense convolution, which has no other algorithm here",
    "one channel": "its input has a single channel",
    "subclass": "it is a subclass, whose own behaviour would be lost",
    "patched": "its `call` was replaced",
    "LoRA": "LoRA is enabled",
    "quantized": "it is quantized",
    "filtered": "it is not converted, or `filters` exclude it",
}
"""Reasons why a layer is left alone, by type."""

MAX_NAMED = 2
"""Limit of the paths named among layers that are alike."""


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A layer of a stock class, or of a subclass of one, that is left alone.

    Attributes:
        path: names of the enclosing layers and its own, joined by slashes.
        layer: name of its class.
        reason: one of `REASONS`.
    """

    path: str
    layer: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Survey:
    """The layers of a model that a conversion concerns.

    Attributes:
        chosen: the layers to convert, by their index among the model's.
        skipped: the layers left alone.
    """

    chosen: dict[int, keras.layers.Layer]
    skipped: tuple[Skipped, ...]


def survey(
    model: keras.Model,
    accept: Callable[[str, keras.layers.Layer], bool],
    plan: str | Plan = AUTO,
) -> Survey:
    """Surveys the layers of a model.

    Args:
        model: the model.
        accept: whether to choose a layer, from its path and the layer.
        plan: the plan that the layers are to run.
    """
    dense = takes_dense(model, plan)
    chosen, skipped = {}, []
    for i, (path, layer) in enumerate(
        backends.keras_internals.layers_with_paths(model)
    ):
        if not has_replacement(layer, dense):
            continue
        reason = reason_to_leave(layer, dense)
        if reason is None and not accept(path, layer):
            reason = "filtered"
        if reason is None:
            chosen[i] = layer
        else:
            skipped.append(Skipped(path, type(layer).__qualname__, reason))
    return Survey(chosen, tuple(skipped))


def has_replacement(layer, dense: bool) -> bool:
    """Whether a layer is one of the package's, of a stock class that has a replacement,
    or of a subclass of one; a dense layer only over pixels.

    Args:
        layer: the layer.
        dense: whether dense convolutions are replaced.
    """
    return any(
        isinstance(layer, stock) and ours.is_candidate(layer, dense)
        for stock, ours in STOCK_TO_OURS.items()
    )


def is_one_of_ours(layer) -> bool:
    """Whether a layer is exactly one of the package's."""
    return type(layer) in STOCK_TO_OURS.values()


def takes_dense(model: keras.Model, plan: str | Plan = AUTO) -> bool:
    """Whether a plan can run dense convolutions of a model by another algorithm."""
    if isinstance(plan, Plan):
        return plan.has(Matmul)
    return serves_dense(environment_of(model))


def reason_to_leave(layer, dense: bool) -> str | None:
    """Reason why a layer that has a replacement is left alone, or `None`.

    Args:
        layer: the layer.
        dense: whether dense convolutions are replaced.
    """
    if is_one_of_ours(layer):
        return None
    has_one_group = getattr(layer, "groups", None) == 1
    if has_one_group and not dense:
        return "one group"
    if type(layer) not in STOCK_TO_OURS:
        return "subclass"
    if has_one_group and not has_channels(layer):
        return "one channel"
    if "call" in vars(layer):
        return "patched"
    if getattr(layer, "lora_enabled", False):
        return "LoRA"
    if layer.dtype_policy.quantization_mode is not None:
        return "quantized"
    return None


def has_channels(layer) -> bool:
    """Whether the input of a convolution has several channels, or is not yet known."""
    return not layer.built or layer.kernel.shape[-2] > 1


def own_compiled(model: keras.Model) -> tuple[str, ...]:
    """Functions compiled by the user that are attributes of a model's layers or their
    classes. Each keeps the plans that it was traced with."""
    of_classes: dict[type, list[str]] = {}
    found = []
    places = [(model.name, model), *backends.keras_internals.layers_with_paths(model)]
    for path, layer in places:
        for base in type(layer).__mro__:
            if base not in of_classes:
                of_classes[base] = compiled_among(vars(base))
        names = itertools.chain(*(of_classes[base] for base in type(layer).__mro__))
        own = [name for name in compiled_among(vars(layer)) if name not in COMPILED]
        found += [f"{path}.{name}" for name in dict.fromkeys([*own, *names])]
    return tuple(found)


def compiled_among(attributes: Mapping[str, Any]) -> list[str]:
    """Names of the attributes that are compiled functions."""
    kinds = backends.active.COMPILED_FUNCTIONS
    return [name for name, each in attributes.items() if isinstance(each, kinds)]


def skipped_lines(skipped: Iterable[Skipped]) -> list[str]:
    """Lines on the layers left alone, one for each class and reason."""
    paths: dict[tuple[str, str], list[str]] = {}
    for each in skipped:
        paths.setdefault((each.layer, each.reason), []).append(each.path)
    return [
        f"{len(found)} {layer} left alone ({abridged(found)}): {REASONS[reason]}."
        for (layer, reason), found in paths.items()
    ]


def abridged(paths: Sequence[str]) -> str:
    """Paths as text, abridged to the first and the last."""
    if len(paths) <= MAX_NAMED:
        return ", ".join(paths)
    return f"{paths[0]} … {paths[-1]}"
