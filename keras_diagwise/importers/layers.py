"""The stock layers that the formats share.

Files count channels before pixels; the models here have them last. Tensors are always
`(batch, height, width, channels)`, those of one pixel too.
"""

from __future__ import annotations

import math
from typing import Any

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
    """A convolution with as many zeros before an axis as behind it, which Keras's
    `"same"` has without strides only."""
    reach = [d * (k - 1) for d, k in zip(dilation, size, strict=True)]
    is_same = strides == (1, 1) and [2 * p for p in padding] == reach
    if any(padding) and not is_same:
        x = keras.layers.ZeroPadding2D(padding, name=f"{name}_padding", **LAST)(x)
    settings: Any = {
        "kernel_size": size,
        "strides": strides,
        "padding": "same" if is_same else "valid",
        "dilation_rate": dilation,
        "use_bias": use_bias,
        "name": name,
        **LAST,
    }
    if is_depthwise(x.shape[-1], filters, groups, strides):
        return keras.layers.DepthwiseConv2D(**settings)(x)
    return keras.layers.Conv2D(filters, groups=groups, **settings)(x)


def max_pooling(x, name: str, size: Pair, strides: Pair, before: Pair, outputs: Pair):
    """The maxima of windows of which the first begins `before` pixels ahead of the
    image, `before` being at most `(size - 1) // 2`.

    Keras pads by minus infinity only as `"same"` places it. Elsewhere all windows are
    taken at stride 1, and those that are wanted picked.
    """
    if before == (0, 0) and fits(x.shape[1:3], size, strides, outputs):
        pool = keras.layers.MaxPooling2D(size, strides, name=name, **LAST)
        return pool(x)
    if all(
        is_same(*axis)
        for axis in zip(x.shape[1:3], size, strides, before, outputs, strict=True)
    ):
        pool = keras.layers.MaxPooling2D(size, strides, "same", name=name, **LAST)
        return pool(x)
    starts = [(k - 1) // 2 - b for k, b in zip(size, before, strict=True)]
    ends = [
        image - start - stride * (count - 1) - 1
        for image, start, stride, count in zip(
            x.shape[1:3], starts, strides, outputs, strict=True
        )
    ]
    x = keras.layers.MaxPooling2D(size, 1, "same", name=f"{name}_windows", **LAST)(x)
    crop = tuple(zip(starts, ends, strict=True))
    x = keras.layers.Cropping2D(crop, name=f"{name}_cropping", **LAST)(x)
    return keras.layers.MaxPooling2D(1, strides, name=name, **LAST)(x)


def fits(image: Pair, size: Pair, strides: Pair, outputs: Pair) -> bool:
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
    return layer(one_pixel(x, name))


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
