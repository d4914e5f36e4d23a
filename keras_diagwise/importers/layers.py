"""The stock layers that the formats share.

Files count channels before pixels; the models here have them last. Tensors are always
`(batch, height, width, channels)`, those of one pixel too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_diagwise.importers.weights import DEPTHWISE_KERNEL, KERNEL

LAST: Any = {"data_format": "channels_last"}
Pair = tuple[int, int]


def is_depthwise(channels: int, filters: int, groups: int, strides: Pair) -> bool:
    """Whether `DepthwiseConv2D` serves: TensorFlow's has no unequal strides."""
    return 1 < groups == channels == filters and strides[0] == strides[1]


def kernel_axes(channels: int, filters: int, groups: int, strides: Pair):
    """For each axis of Keras's kernel, that of a file's
    `(filters, channels / groups, height, width)`."""
    depthwise = is_depthwise(channels, filters, groups, strides)
    return DEPTHWISE_KERNEL if depthwise else KERNEL


def convolution(
    x,
    name: str,
    filters: int,
    size: Pair,
    strides: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    use_bias: bool = True,
):
    """A convolution with as many zeros before an axis as behind it.

    Keras's `"same"` has that without strides only; elsewhere another layer pads.
    """
    reach = [d * (k - 1) for d, k in zip(dilation, size, strict=True)]
    needs_none = strides == (1, 1) and [2 * p for p in padding] == reach
    x = x if needs_none else padded(x, name, padding)
    settings: Any = {
        "kernel_size": size,
        "strides": strides,
        "padding": "same" if needs_none else "valid",
        "dilation_rate": dilation,
        "use_bias": use_bias,
        "name": name,
        **LAST,
    }
    if is_depthwise(x.shape[-1], filters, groups, strides):
        return with_zeros(keras.layers.DepthwiseConv2D(**settings), x)
    return with_zeros(keras.layers.Conv2D(filters, groups=groups, **settings), x)


def with_zeros(layer: keras.layers.Layer, x):
    """The output of a layer whose kernel is 0 until it is set; the layer keeps its
    initializer. JAX would compile a program for each shape of a random one, which took
    nine tenths of the time of a load (seen in 0.10)."""
    of_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    name = "depthwise_initializer" if of_depthwise else "kernel_initializer"
    initializer = getattr(layer, name)
    setattr(layer, name, keras.initializers.Zeros())
    x = layer(x)
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
    """How many windows an image has in each axis.

    Args:
        image: its height and width, and what may follow.
        size: of a window.
        strides: between windows.
        padding: of both sides together.
        dilation: of a window.
        is_ceil: whether a window that ends beyond the padding counts.
    """
    rest = [
        pixels + p - d * (k - 1) - 1
        for pixels, k, p, d in zip(image[:2], size, padding, dilation, strict=True)
    ]
    rows, columns = (
        (-(-each // stride) if is_ceil else each // stride) + 1
        for each, stride in zip(rest, strides, strict=True)
    )
    return rows, columns


def can_max_pool(
    image: Sequence[int], size: Pair, strides: Pair, before: Pair, outputs: Pair
) -> bool:
    """Whether `max_pooling` can place these windows."""
    axes = list(zip(image[:2], size, strides, before, outputs, strict=True))
    return (
        (before == (0, 0) and fits(image[:2], size, strides, outputs))
        or all(is_same(*axis) for axis in axes)
        or all(min(cropping(*axis)) >= 0 for axis in axes)
    )


def max_pooling(x, name: str, size: Pair, strides: Pair, before: Pair, outputs: Pair):
    """The maxima of windows, of which the first begins `before` pixels ahead of the
    image.

    Keras pads by minus infinity only as `"same"` places it. Elsewhere all windows are
    taken at stride 1, and those that are wanted picked.
    """
    image = x.shape[1:3]
    axes = list(zip(image, size, strides, before, outputs, strict=True))
    layer = keras.layers.MaxPooling2D
    if before == (0, 0) and fits(image, size, strides, outputs):
        return layer(size, strides, name=name, **LAST)(x)
    if all(is_same(*axis) for axis in axes):
        return layer(size, strides, "same", name=name, **LAST)(x)
    x = layer(size, 1, "same", name=f"{name}_windows", **LAST)(x)
    crop = tuple(cropping(*axis) for axis in axes)
    x = keras.layers.Cropping2D(crop, name=f"{name}_cropping", **LAST)(x)
    return layer(1, strides, name=name, **LAST)(x)


def cropping(image: int, size: int, stride: int, before: int, outputs: int) -> Pair:
    """How many windows of stride 1, placed as `"same"`, an axis has before the first
    that is wanted, and behind the last."""
    start = (size - 1) // 2 - before
    return start, image - start - stride * (outputs - 1) - 1


class Pooling(NamedTuple):
    """Pooling by windows.

    Attributes:
        kind: `"max"` or `"avg"`, which counts the zeros of the padding.
        size: of a window.
        strides: between windows.
        padding: before an axis and, as far as windows reach, behind it.
        outputs: how many windows there are in each axis.
    """

    kind: str
    size: Pair
    strides: Pair
    padding: Pair
    outputs: Pair

    def can_build(self, image: Sequence[int]) -> bool:
        """Whether stock layers can place the windows."""
        if self.kind == "max":
            return can_max_pool(image, *self[1:])
        both = 2 * self.padding[0], 2 * self.padding[1]
        return windows(image, self.size, self.strides, both) == self.outputs

    def build(self, x, name: str):
        if self.kind == "max":
            return max_pooling(x, name, *self[1:])
        if self.size == tuple(x.shape[1:3]) and not any(self.padding):
            return mean(x, name)
        layer = keras.layers.AveragePooling2D(
            self.size, self.strides, name=name, **LAST
        )
        return layer(padded(x, name, self.padding))


def padded(x, name: str, padding: Pair):
    """As many zeros before an axis as behind it."""
    if not any(padding):
        return x
    return keras.layers.ZeroPadding2D(padding, name=f"{name}_padding", **LAST)(x)


def fits(image: Sequence[int], size: Pair, strides: Pair, outputs: Pair) -> bool:
    """Whether windows without padding are as many as wanted."""
    return all(
        (i - k) // s + 1 == count and i >= k
        for i, k, s, count in zip(image, size, strides, outputs, strict=True)
    )


def is_same(image: int, size: int, stride: int, before: int, outputs: int) -> bool:
    """Whether Keras's `"same"` places an axis's windows so."""
    padding = max((outputs - 1) * stride + size - image, 0)
    return outputs == math.ceil(image / stride) and before == padding // 2


def batch_norm(x, name: str, epsilon: float, momentum: float, **settings):
    """Batch normalization over all but the channels."""
    return keras.layers.BatchNormalization(
        epsilon=epsilon, momentum=momentum, name=name, **settings
    )(x)


def channels(x, name: str, part: int, parts: int):
    """One of several equal parts of the channels: a cropping of the "width" of an
    image that has its channels first."""
    if parts == 1:
        return x
    count = x.shape[-1] // parts
    return cropped(x, name, part * count, (parts - part - 1) * count)


def with_channels(x, name: str, count: int):
    """The first channels, behind which zeros stand if there are less than `count`."""
    missing = count - x.shape[-1]
    if missing < 0:
        return cropped(x, name, 0, -missing)
    if missing == 0:
        return x
    padding = ((0, 0), (0, missing))
    layer = keras.layers.ZeroPadding2D
    return layer(padding, data_format="channels_first", name=name)(x)


def cropped(x, name: str, before: int, behind: int):
    crop = ((0, 0), (before, behind))
    layer = keras.layers.Cropping2D
    return layer(crop, data_format="channels_first", name=name)(x)


def one_pixel(x, name: str):
    """All values as the channels of one pixel, in a file's order."""
    height, width, count = x.shape[1:]
    if (height, width) == (1, 1):
        return x
    x = keras.layers.Permute((3, 1, 2), name=f"{name}_permute")(x)
    shape = (1, 1, height * width * count)
    return keras.layers.Reshape(shape, name=f"{name}_reshape")(x)


def dense(x, name: str, units: int, use_bias: bool):
    """A layer of all values."""
    layer = keras.layers.Dense(units, use_bias=use_bias, name=name)
    return with_zeros(layer, one_pixel(x, name))


def softmax(x, name: str, groups: int = 1, temperature: float = 1.0):
    """The softmax of all values, or of each of several groups of them."""
    x = one_pixel(x, name)
    count = x.shape[-1]
    if temperature != 1:
        scale = keras.layers.Rescaling(1 / temperature, name=f"{name}_temperature")
        x = scale(x)
    if groups == 1:
        return keras.layers.Softmax(name=name)(x)
    shape = (1, groups, count // groups)
    x = keras.layers.Reshape(shape, name=f"{name}_groups")(x)
    x = keras.layers.Softmax(name=name)(x)
    return keras.layers.Reshape((1, 1, count), name=f"{name}_all")(x)


def activation(x, name: str, kind: str):
    """An activation, by its name in Keras; `"linear"` is no layer."""
    if kind == "linear":
        return x
    return keras.layers.Activation(kind, name=name)(x)


def mean(x, name: str):
    """The mean of each channel."""
    layer = keras.layers.GlobalAveragePooling2D
    return layer(keepdims=True, name=name, **LAST)(x)


def concatenate(tensors: list, name: str):
    """The channels of tensors one after another; one tensor is left as it is."""
    if len(tensors) == 1:
        return tensors[0]
    return keras.layers.Concatenate(axis=-1, name=name)(tensors)


def add(tensors: list, name: str):
    return keras.layers.Add(name=name)(tensors)


def multiply(tensors: list, name: str):
    """Their product; axes of 1 are repeated."""
    return keras.layers.Multiply(name=name)(tensors)


def upsampling(x, name: str, factor: int, scale: float = 1.0):
    """Each pixel as a square of them."""
    x = keras.layers.UpSampling2D(factor, name=name, **LAST)(x)
    if scale == 1:
        return x
    return keras.layers.Rescaling(scale, name=f"{name}_scale")(x)


def dropout(x, name: str, rate: float):
    return keras.layers.Dropout(rate, name=name)(x)
