"""A step of a network: stock layers yet to be built, and their weights."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import keras

from keras_diagwise.importers.options import MAX_VALUES, Source
from keras_diagwise.importers.weights import Weight

LAST: Any = {"data_format": "channels_last"}
FIRST: Any = {"data_format": "channels_first"}
DEPTHWISE_KERNEL, KERNEL, MATRIX = (2, 3, 0, 1), (2, 3, 1, 0), (1, 0)
"""The files' axis for each axis of Keras's variable."""

Pair = tuple[int, int]
Shape = tuple[int, int, int]
Axes = tuple[int, ...]


@dataclasses.dataclass
class Step:
    """A chain of layers. Methods append layers and update the shape.

    Nothing is allocated before `build`. Files are channels first, models channels last:
    `(batch, height, width, channels)`, also for one pixel.

    Attributes:
        source: its source in the file.
        name: name of its layers, to which some add a suffix.
        inputs: indices of the steps that it reads.
        shapes: shapes of the inputs: height, width, channels.
        options: values of its kind's options.
        weights: its weights, by name of the variable.
        shape: shape of the output.
    """

    source: Source
    name: str
    inputs: Sequence[int]
    shapes: list[Shape]
    options: SimpleNamespace
    weights: dict[str, Weight] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self._layers: list[functools.partial] = []
        self._of_inputs: dict[int, functools.partial] = {}
        self.error = self.source.error
        self.resize(self.shapes[0])

    def resize(self, shape: Shape) -> None:
        """Sets the shape.

        Raises:
            ValueError: if it is empty or too large.
        """
        if math.prod(shape) > MAX_VALUES or min(shape) < 1:
            raise self.error(
                f"its output must have from 1 to {MAX_VALUES:,} values",
                f"height × width × channels = {shape}",
            )
        self.shape = shape

    def append(
        self, layer: Any, suffix: str = "", shape: Shape | None = None, **settings
    ) -> None:
        """Appends a layer; without `shape` it keeps the current one."""
        name = f"{self.name}_{suffix}" if suffix else self.name
        self._layers.append(functools.partial(layer, name=name, **settings))
        self.resize(shape or self.shape)

    def change(self, **settings) -> None:
        """Changes settings of the last layer."""
        self._layers[-1] = functools.partial(self._layers[-1], **settings)

    def build(self, tensors: Sequence[Any]) -> Any:
        """Builds the layers and returns the output for the inputs' tensors."""
        read = [
            self._of_inputs[i]()(x) if i in self._of_inputs else x
            for i, x in enumerate(tensors)
        ]
        x = read if len(read) > 1 else read[0]
        for layer in self._layers:
            x = with_zeros(layer(), x)
        return x

    def add_weight(
        self, variable: str, shape: Axes, axes: Axes = (0,), is_one: bool = False
    ) -> None:
        """Adds a weight of the last layer."""
        place, name = self.source.place, self._layers[-1].keywords["name"]
        held = "" if is_one else variable
        weight = Weight(f"{variable} of {place}", name, held, shape, axes)
        self.weights[variable] = weight

    def ordered(self, variables: Sequence[str]) -> list[Weight]:
        """The weights in this order; missing ones are left out."""
        return [self.weights[each] for each in variables if each in self.weights]

    def add_kernel(self, shape: Axes, axes: Axes, use_bias: bool) -> None:
        """Adds a kernel, whose first axis is the outputs', and the bias."""
        self.add_weight("kernel", shape, axes)
        if use_bias:
            self.add_weight("bias", shape[:1])

    def convolution(
        self,
        filters: int,
        size: Pair,
        strides: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int | None,
        use_bias: bool,
    ) -> None:
        """Appends a convolution with symmetric padding; `groups=None` is depthwise.

        Keras's `"same"` pads symmetrically only without strides; otherwise a layer of
        its own pads.
        """
        channels = self.shape[2]
        groups = groups or channels
        if channels % groups or filters % groups:
            raise self.error(
                f"its groups must divide {filters} filters and {channels} channels",
                f"groups={groups}",
            )
        if max(dilation) > 1 and max(strides) > 1:
            received = f"dilation={dilation}, strides={strides}"
            raise self.error("dilation takes strides of 1", received)
        count = windows(self.shape, size, strides, twice(padding), dilation)
        is_same = strides == (1, 1) and count == self.shape[:2]
        if not is_same:
            self.pad(padding)
        layer, axes = keras.layers.DepthwiseConv2D, DEPTHWISE_KERNEL
        # TensorFlow's depthwise convolution does not support unequal strides.
        if not 1 < groups == channels == filters or strides[0] != strides[1]:
            dense = {"filters": filters, "groups": groups}
            layer, axes = functools.partial(keras.layers.Conv2D, **dense), KERNEL
        self.append(
            layer,
            shape=(*count, filters),
            kernel_size=size,
            strides=strides,
            padding="same" if is_same else "valid",
            dilation_rate=dilation,
            use_bias=use_bias,
            **LAST,
        )
        self.add_kernel((filters, channels // groups, *size), axes, use_bias)

    def dense(self, units: int, use_bias: bool) -> None:
        """Appends a dense layer on all values."""
        self.flatten()
        kernel = units, self.shape[2]
        layer = functools.partial(keras.layers.Dense, units, use_bias=use_bias)
        self.append(layer, shape=(1, 1, units))
        self.add_kernel(kernel, MATRIX, use_bias)

    def batch_norm(
        self,
        epsilon: float,
        momentum: float,
        scale: bool = True,
        center: bool = True,
        suffix: str = "",
    ) -> None:
        """Appends a batch normalization over all axes but the channels."""
        layer = keras.layers.BatchNormalization
        self.append(layer, suffix, epsilon=epsilon, momentum=momentum)
        for variable in ("moving_mean", "moving_variance"):
            self.add_weight(variable, self.shape[2:])
        self.affine(center, scale)

    def affine(self, center: bool, scale: bool = True) -> None:
        """Sets whether the last layer, a batch normalization, has beta and gamma."""
        self.change(scale=scale, center=center)
        self.add_weight("gamma", self.shape[2:], is_one=not scale)
        if center:
            self.add_weight("beta", self.shape[2:])

    def pooling(
        self, kind: str, size: Pair, strides: Pair, before: Pair, outputs: Pair
    ) -> None:
        """Appends a max pooling, or an average pooling that counts the padding's zeros.

        Keras pads by minus infinity only as `"same"` does. Elsewhere the pooling runs
        at stride 1 and the wanted windows are picked from it.

        Args:
            kind: `"max"` or `"avg"`.
            size: size of a window.
            strides: strides between windows.
            before: padding before an axis and, where windows reach it, after it.
            outputs: number of windows along each axis.

        Raises:
            ValueError: if stock layers can't place the windows.
        """
        image, shape = self.shape[:2], (*outputs, self.shape[2])
        if kind == "avg" and size == image and not any(before):
            return self.mean()
        is_max, stock = kind == "max", keras.layers
        layer = stock.MaxPooling2D if is_max else stock.AveragePooling2D
        settings: dict[str, Any] = {"pool_size": size, "strides": strides, **LAST}
        axes = list(zip(image, size, strides, before, outputs, strict=True))
        crop = tuple(cropping(*axis) for axis in axes)
        is_valid = windows(image, size, strides, twice(before)) == outputs
        if is_valid and not (is_max and any(before)):
            self.pad(before)
            self.append(layer, shape=shape, **settings)
        elif is_max and all(is_same(*axis) for axis in axes):
            self.append(layer, shape=shape, padding="same", **settings)
        elif is_max and min(map(min, crop)) >= 0:
            everywhere = {**settings, "strides": 1, "padding": "same"}
            self.append(layer, "windows", **everywhere)
            self.append(stock.Cropping2D, "cropping", cropping=crop, **LAST)
            self.append(layer, shape=shape, pool_size=1, strides=strides, **LAST)
        else:
            received = f"{size} by {strides}, {before} before, {outputs} in all"
            raise self.error(f"an image of {image} can't be pooled so", received)

    def padded_pooling(
        self,
        kind: str,
        size: Pair,
        strides: Pair,
        padding: Pair,
        is_global: bool,
        is_ceil: bool,
        is_clipped: bool = False,
    ) -> None:
        """Appends a max or average pooling with symmetric padding.

        Args:
            kind: `"max"` or `"avg"`.
            size: size of a window.
            strides: strides between windows.
            padding: padding of each side.
            is_global: whether the whole image is the only window.
            is_ceil: whether a window that ends beyond the padding counts.
            is_clipped: whether, with padding, a window that begins beyond the image is
                left out.
        """
        image = self.shape[:2]
        if is_global:
            size, strides, padding = image, (1, 1), (0, 0)
        count = windows(image, size, strides, twice(padding), is_ceil=is_ceil)
        if is_clipped and any(padding):
            places = zip(count, strides, image, padding, strict=True)
            rows, columns = (n - ((n - 1) * s >= i + p) for n, s, i, p in places)
            count = rows, columns
        self.pooling(kind, size, strides, padding, count)

    def pad(self, padding: Pair) -> None:
        """Appends symmetric zero padding."""
        if any(padding):
            rows, columns = twice(padding)
            shape = self.shape[0] + rows, self.shape[1] + columns, self.shape[2]
            layer = keras.layers.ZeroPadding2D
            self.append(layer, "padding", shape, padding=padding, **LAST)

    def mean(self) -> None:
        """Appends a global average pooling."""
        layer, shape = keras.layers.GlobalAveragePooling2D, (1, 1, self.shape[2])
        self.append(layer, shape=shape, keepdims=True, **LAST)

    def activation(self, kind: str, suffix: str = "") -> None:
        """Appends an activation by its Keras name; none for `"linear"`."""
        if kind != "linear":
            self.append(keras.layers.Activation, suffix, activation=kind)

    def relu(self, slope: float = 0.0, most: float | None = None) -> None:
        """Appends a ReLU, optionally leaky or with an upper bound."""
        self.append(keras.layers.ReLU, negative_slope=slope, max_value=most)

    def dropout(self, rate: float) -> None:
        self.append(keras.layers.Dropout, rate=rate)

    def flatten(self) -> None:
        """Reshapes all values to the channels of one pixel, in the file's order."""
        height, width, channels = self.shape
        if (height, width) != (1, 1):
            first = channels, height, width
            self.append(keras.layers.Permute, "permute", first, dims=(3, 1, 2))
            self.reshape((1, 1, math.prod(first)), "reshape")

    def reshape(self, shape: Shape, suffix: str) -> None:
        if shape != self.shape:
            self.append(keras.layers.Reshape, suffix, shape, target_shape=shape)

    def softmax(self) -> None:
        """Appends a softmax of a vector."""
        if self.shape[:2] != (1, 1):
            raise self.error("a softmax must be of a vector", self.shape)
        self.append(keras.layers.Softmax)

    def add(self) -> None:
        """Appends the sum of several tensors of one shape."""
        if len(self.shapes) < 2 or len(set(self.shapes)) > 1:
            raise self.error(
                "its inputs, two or more, must have one shape", self.shapes
            )
        self.append(keras.layers.Add)

    def multiply(self) -> None:
        """Appends the product of tensors of one shape, or with a factor per channel."""
        shape = max(self.shapes)
        if len(self.shapes) < 2 or set(self.shapes) - {shape, (1, 1, shape[2])}:
            reason = (
                "its inputs, two or more, must have one shape, or a value a channel"
            )
            raise self.error(reason, self.shapes)
        self.append(keras.layers.Multiply, shape=shape)

    def concatenate(self) -> None:
        """Concatenates the inputs along the channels."""
        height, width, _ = self.shape
        if any(shape[:2] != (height, width) for shape in self.shapes):
            raise self.error("its inputs must be of one size", self.shapes)
        self.resize((height, width, sum(shape[2] for shape in self.shapes)))
        if len(self.shapes) > 1:
            self.append(keras.layers.Concatenate, axis=-1)

    def select(self, i: int, start: int, count: int) -> None:
        """Takes `count` channels of an input, padded with zeros beyond its last.

        Crops and pads them as the "width" of a channels-first image.
        """
        height, width, channels = self.shapes[i]
        self.shapes[i] = height, width, count
        missing = start + count - channels
        if (start, missing) == (0, 0):
            return
        layer, sides = keras.layers.ZeroPadding2D, (0, missing)
        if missing <= 0:
            layer, sides = keras.layers.Cropping2D, (start, -missing)
        name = f"{self.name}_part_{i}"
        make = functools.partial(layer, ((0, 0), sides), name=name, **FIRST)
        self._of_inputs[i] = make


def with_zeros(layer: keras.layers.Layer, x):
    """Calls a layer so that its kernel is built as zeros; its initializer is kept.

    JAX compiles a program for each shape of a random kernel, nine tenths of the time
    of a load (seen in 0.10).
    """
    names = "kernel_initializer", "depthwise_initializer"
    kept = {name: getattr(layer, name) for name in names if hasattr(layer, name)}
    for name in kept:
        setattr(layer, name, keras.initializers.Zeros())
    x = layer(x)
    for name, initializer in kept.items():
        setattr(layer, name, initializer)
    return x


def windows(
    image: Sequence[int],
    size: Pair,
    strides: Pair,
    padding: Pair,
    dilation: Pair = (1, 1),
    is_ceil: bool = False,
) -> Pair:
    """Number of windows along each axis of an image.

    Args:
        image: its height and width; further entries are ignored.
        size: size of a window.
        strides: strides between windows.
        padding: padding of both sides together.
        dilation: dilation of a window.
        is_ceil: whether a window that ends beyond the padding counts.
    """
    axes = zip(image[:2], size, strides, padding, dilation, strict=True)
    rows, columns = (
        (pixels + p - d * (k - 1) - 1 + (s - 1) * is_ceil) // s + 1
        for pixels, k, s, p, d in axes
    )
    return rows, columns


def twice(padding: Pair) -> Pair:
    return 2 * padding[0], 2 * padding[1]


def is_same(image: int, size: int, stride: int, before: int, outputs: int) -> bool:
    """Whether Keras's `"same"` places the windows of an axis like this."""
    padding = max((outputs - 1) * stride + size - image, 0)
    return outputs == math.ceil(image / stride) and before == padding // 2


def cropping(image: int, size: int, stride: int, before: int, outputs: int) -> Pair:
    """Number of `"same"` windows at stride 1 before the first wanted one, and after the
    last."""
    start = (size - 1) // 2 - before
    return start, image - start - stride * (outputs - 1) - 1
