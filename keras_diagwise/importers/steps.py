"""Steps that the formats share: what each needs to be told, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from keras_diagwise.importers import layers
from keras_diagwise.importers.graph import Shape, Step
from keras_diagwise.importers.layers import Pair
from keras_diagwise.importers.weights import MATRIX, VECTOR, Weight


class Source(Protocol):
    """What a step is made of: a section, a node, a layer."""

    @property
    def place(self) -> str:
        """Where it stands."""

    def error(self, reason: str, received: object) -> ValueError:
        """What refuses it, with its place."""


class Inputs(NamedTuple):
    """The steps that a step reads, by index, and their shapes."""

    steps: Sequence[int]
    shapes: Sequence[Shape]

    @property
    def shape(self) -> Shape:
        """The first's."""
        return self.shapes[0]


def vector(source: Source, name: str, variable: str, size: int) -> Weight:
    """A weight with a value for each channel."""
    return Weight(f"{variable} of {source.place}", name, variable, (size,), VECTOR)


def matrix(source: Source, name: str, units: int, inputs: int) -> Weight:
    """The kernel of a dense layer."""
    place = f"kernel of {source.place}"
    return Weight(place, name, "kernel", (units, inputs), MATRIX)


class Convolution(NamedTuple):
    """A convolution, with as many zeros before an axis as behind it."""

    filters: int
    size: Pair
    strides: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def check(self, source: Source, channels: int) -> None:
        """Refuses groups that do not divide, and what Keras has no layer for."""
        if channels % self.groups or self.filters % self.groups:
            reason = (
                f"its groups must divide {self.filters} filters and {channels} channels"
            )
            raise source.error(reason, f"groups={self.groups}")
        if max(self.dilation) > 1 and max(self.strides) > 1:
            received = f"dilation={self.dilation}, strides={self.strides}"
            raise source.error("dilation takes strides of 1", received)

    def kernel(self, source: Source, name: str, channels: int) -> Weight:
        """The kernel's weight."""
        axes = layers.kernel_axes(channels, self.filters, self.groups, self.strides)
        shape = (self.filters, channels // self.groups, *self.size)
        return Weight(f"kernel of {source.place}", name, "kernel", shape, axes)

    def shape(self, image: Shape) -> Shape:
        """Of what it makes of an image."""
        pixels = layers.windows(
            image, self.size, self.strides, twice(self.padding), self.dilation
        )
        return (*pixels, self.filters)

    def build(self, x, name: str, use_bias: bool):
        return layers.convolution(x, name, *self, use_bias)


def twice(padding: Pair) -> Pair:
    return 2 * padding[0], 2 * padding[1]


def elementwise(source: Source, inputs: Inputs, build: Callable) -> Step:
    """What keeps the shape."""
    return Step(source.place, inputs.shape, build, inputs.steps)


def pooling(source: Source, name: str, inputs: Inputs, pool: layers.Pooling) -> Step:
    image = inputs.shape
    if not pool.can_build(image):
        raise source.error(f"an image of {image} can't be pooled so", pool)
    shape = (*pool.outputs, image[2])
    return Step(source.place, shape, lambda x: pool.build(x, name), inputs.steps)


def dropout(source: Source, name: str, inputs: Inputs, rate: float) -> Step:
    if not 0 <= rate <= 1:
        raise source.error("the rate of dropout must be from 0 to 1", rate)
    return elementwise(source, inputs, lambda x: layers.dropout(x, name, rate))


def flatten(source: Source, name: str, inputs: Inputs) -> Step:
    shape = (1, 1, math.prod(inputs.shape))
    step = elementwise(source, inputs, lambda x: layers.one_pixel(x, name))
    return step._replace(shape=shape)


def softmax(source: Source, name: str, inputs: Inputs) -> Step:
    """Of a vector."""
    if inputs.shape[:2] != (1, 1):
        raise source.error("a softmax must be of a vector", inputs.shape)
    return elementwise(source, inputs, lambda x: layers.softmax(x, name))


def add(source: Source, name: str, inputs: Inputs) -> Step:
    if len(set(inputs.shapes)) > 1:
        raise source.error("its inputs must have one shape", inputs.shapes)
    return elementwise(source, inputs, lambda *x: layers.add(list(x), name))


def multiply(source: Source, name: str, inputs: Inputs) -> Step:
    """Tensors of one shape, or with a factor for each channel."""
    shape = max(inputs.shapes)
    if set(inputs.shapes) - {shape, (1, 1, shape[2])}:
        reason = "its inputs must have one shape, or a value for each channel"
        raise source.error(reason, inputs.shapes)
    step = elementwise(source, inputs, lambda *x: layers.multiply(list(x), name))
    return step._replace(shape=shape)


def concatenate(source: Source, name: str, inputs: Inputs) -> Step:
    """The channels of several tensors."""
    height, width, _ = inputs.shape
    if any(shape[:2] != (height, width) for shape in inputs.shapes):
        raise source.error("its inputs must be of one size", inputs.shapes)
    step = elementwise(source, inputs, lambda *x: layers.concatenate(list(x), name))
    channels = sum(shape[2] for shape in inputs.shapes)
    return step._replace(shape=(height, width, channels))
