"""A network that is understood, and not built: its sizes are known before memory is
taken for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras

from keras_diagwise._terminal import printable
from keras_diagwise.importers.weights import Weight

Shape = tuple[int, int, int]

MAX_STEPS = 4096
MAX_VALUES = 2**31 - 1
"""Of one image in a step: the frameworks count them in 32 bits."""


class Step(NamedTuple):
    """An operation of a network.

    Attributes:
        place: where it stands, for errors.
        shape: of its output: height, width, channels.
        build: makes the output from the steps' that it reads.
        sources: those steps, by index.
        weights: in the file's order, if it has one.
    """

    place: str
    shape: Shape
    build: Callable[..., Any]
    sources: Sequence[int]
    weights: Sequence[Weight] = ()


class Graph:
    """Steps, of which each reads earlier ones; step 0 is the image.

    Args:
        place: where the image's size stands.
        image: height, width, channels.
    """

    def __init__(self, place: str, image: Shape):
        self.steps: list[Step] = []
        self.add(Step(place, image, lambda: None, ()))

    def add(self, step: Step) -> int:
        """Adds a step and returns its index.

        Raises:
            ValueError: if its output is empty or too large, or it is one too many.
        """
        if math.prod(step.shape) > MAX_VALUES or min(step.shape) < 1:
            raise ValueError(
                f"{step.place}: its output must have from 1 to {MAX_VALUES:,} values. "
                f"Received: height × width × channels = {short(step.shape)}"
            )
        if len(self.steps) > MAX_STEPS:
            raise ValueError(f"{step.place}: there must be at most {MAX_STEPS} layers")
        self.steps.append(step)
        return len(self.steps) - 1

    @property
    def last(self) -> Shape:
        """Shape of the last step's output."""
        return self.steps[-1].shape

    @property
    def weights(self) -> list[Weight]:
        """All weights, in the steps' order."""
        return [weight for step in self.steps for weight in step.weights]

    def used(self, outputs: Sequence[int]) -> list[int]:
        """The steps that the outputs depend on, in order.

        Raises:
            ValueError: if one that has weights is not among them: they would be lost.
        """
        used = set(outputs)
        for i in reversed(range(len(self.steps))):
            if i in used:
                used.update(self.steps[i].sources)
            elif self.steps[i].weights:
                raise ValueError(
                    f"{self.steps[i].place}: no output depends on its weights"
                )
        return sorted(used - {0})

    def build(self, outputs: Sequence[int], name: str) -> keras.Model:
        """The model, its kernels 0. An output of one pixel is a vector.

        Args:
            outputs: the steps that are outputs.
            name: of the input.
        """
        image = keras.Input(self.steps[0].shape, name=name)
        tensors: dict[int, Any] = {0: image}
        for i in self.used(outputs):
            step = self.steps[i]
            tensors[i] = step.build(*(tensors[source] for source in step.sources))
        results = [flat(tensors[i], n) for n, i in enumerate(outputs)]
        return keras.Model(image, results if len(results) > 1 else results[0])


def flat(x, number: int):
    """An output, as a vector if it is of one pixel."""
    if tuple(x.shape[1:3]) != (1, 1):
        return x
    return keras.layers.Flatten(name=f"output_{number}")(x)


def short(value: object) -> str:
    """What was received, as it can be printed; if it is long its beginning."""
    text = str(value)
    return printable(text if len(text) <= 60 else f"{text[:60]}…")
