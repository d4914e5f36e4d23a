"""A network that is understood, and not built: its sizes are known before memory is
taken for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import keras
import numpy as np

from keras_diagwise.importers.options import Option, Source
from keras_diagwise.importers.steps import Shape, Step
from keras_diagwise.importers.weights import Weight

MAX_STEPS = 4096

T = TypeVar("T")


class Kind(NamedTuple):
    """A kind of layer.

    Attributes:
        append: appends its layers to a step.
        options: what a file may say of it.
        weights: their variables in the file's order, as far as a layer has them.
        arguments: how many of the options, the first ones, `append` takes by place;
            it finds all in the step.
        reads_all: whether it reads all of its inputs, not the first only.
    """

    append: Callable[..., None]
    options: Mapping[str, Option] = {}
    weights: Sequence[str] = ()
    arguments: int = 0
    reads_all: bool = False


def kind_of(kinds: Mapping[str, T], name: str, source: Source) -> T:
    """The kind that has a name.

    Raises:
        ValueError: if none has.
    """
    if name not in kinds:
        raise source.error(f"its type must be one of {', '.join(kinds)}", name)
    return kinds[name]


class Graph:
    """Steps, of which each reads earlier ones; step 0 is the image.

    Args:
        source: where the image's size stands.
        image: height, width, channels.

    Attributes:
        steps: all of them.
        outputs: those that are outputs, by index, once `end` has been told.
    """

    def __init__(self, source: Source, image: Shape):
        self.steps = [Step(source, "image", (), [image], SimpleNamespace())]
        self.outputs: Sequence[int] = ()
        self._used: list[int] = []

    def add(
        self, kind: Kind, source: Source, name: str, inputs: list[int], options: Any
    ) -> Step:
        """Adds a step of a kind.

        Raises:
            ValueError: if it can't be, or is one too many.
        """
        if len(self.steps) > MAX_STEPS:
            reason = f"there must be at most {MAX_STEPS} layers"
            raise source.error(reason, len(self.steps))
        shapes = [self.steps[i].shape for i in inputs]
        step = Step(source, name, inputs, shapes, options)
        kind.append(step, *list(vars(options).values())[: kind.arguments])
        self.steps.append(step)
        return step

    def end(self, outputs: Sequence[int]) -> None:
        """Says which steps are outputs.

        Raises:
            ValueError: if none depends on one that has weights: they would be lost.
        """
        used = set(outputs)
        for i, step in reversed(list(enumerate(self.steps))):
            if i in used:
                used.update(step.inputs)
            elif step.weights:
                place = step.source.place
                raise ValueError(f"{place}: no output depends on its weights")
        self.outputs, self._used = outputs, sorted(used - {0})

    def build(
        self, name: str, values: Iterable[tuple[Weight, np.ndarray]]
    ) -> keras.Model:
        """The model. An output of one pixel is a vector.

        Args:
            name: of the input.
            values: of all weights.
        """
        image = keras.Input(self.steps[0].shape, name=name)
        tensors: dict[int, Any] = {0: image}
        for i in self._used:
            step = self.steps[i]
            tensors[i] = step.build([tensors[source] for source in step.inputs])
        results = [as_vector(tensors[i], n) for n, i in enumerate(self.outputs)]
        model = keras.Model(image, results if len(results) > 1 else results[0])
        for weight, each in values:
            weight.put(model, each)
        return model


def as_vector(x, number: int):
    """An output, as a vector if it is of one pixel."""
    if tuple(x.shape[1:3]) != (1, 1):
        return x
    return keras.layers.Flatten(name=f"output_{number}")(x)
