"""A parsed network that is not built yet: no memory is taken before sizes are known."""

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
        options: options that a file may set.
        weights: variables in the file's order; a layer may lack some.
        arguments: number of leading options passed to `append` by position; all are
            in the step too.
        reads_all: whether it reads all of its inputs, not only the first.
    """

    append: Callable[..., None]
    options: Mapping[str, Option] = {}
    weights: Sequence[str] = ()
    arguments: int = 0
    reads_all: bool = False


def kind_of(kinds: Mapping[str, T], name: str, source: Source) -> T:
    """The kind of this name.

    Raises:
        ValueError: if there is no such kind.
    """
    if name not in kinds:
        raise source.error(f"its type must be one of {', '.join(kinds)}", name)
    return kinds[name]


class Graph:
    """Steps in topological order; step 0 is the image.

    Args:
        source: source of the image's size.
        image: height, width, channels.

    Attributes:
        steps: all steps.
        outputs: indices of the output steps, set by `end`.
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
            ValueError: if the step is invalid, or there are more than `MAX_STEPS`.
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
        """Sets the output steps.

        Raises:
            ValueError: if no output depends on a step with weights, which would be
                lost.
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
        """Builds the model. An output of one pixel becomes a vector.

        Args:
            name: name of the input.
            values: all weights with their values.
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
    """An output, flattened to a vector if it has one pixel."""
    if tuple(x.shape[1:3]) != (1, 1):
        return x
    return keras.layers.Flatten(name=f"output_{number}")(x)
