"""Darknet's layers by their definition, in numpy and float64, channels first."""

import math
import struct

import numpy as np

from tests.importers import reference

EPSILON = 1e-5


class Drawn:
    """Random weights, kept as a file has them: float32, in the order of the layers."""

    def __init__(self, seed=0, version=(0, 2, 5), seen=32013312):
        self._draw = np.random.default_rng(seed)
        count = "Q" if 10 * version[0] + version[1] >= 2 else "I"
        self._parts = [struct.pack(f"<3i{count}", *version, seen)]

    def take(self, kind, *shape):
        noise = self._draw.standard_normal(shape)
        values = {
            "kernel": noise / math.sqrt(max(1, math.prod(shape[1:]))),
            "scale": 1 + 0.1 * noise,
            "variance": 0.5 + self._draw.random(shape),
        }.get(kind, 0.1 * noise)
        values = values.astype("<f4")
        self._parts.append(values.tobytes())
        return values.astype("float64")

    def to_bytes(self):
        return b"".join(self._parts)


def sections(cfg):
    found = []
    for line in cfg.splitlines():
        line = line.split("#")[0].replace(" ", "")
        if line.startswith("["):
            found.append((line.strip("[]"), {}))
        elif line:
            key, value = line.split("=")
            found[-1][1][key] = value
    return found


def run(cfg, images, weights):
    """Each layer's output, and which are outputs of the network.

    Args:
        cfg: the text.
        images: `(batch, channels, height, width)`.
        weights: where they come from, such as `Drawn`.
    """
    outputs, heads, x = [], [], np.asarray(images, "float64")
    for name, options in sections(cfg)[1:]:
        if name in ("yolo", "region"):
            heads.append(len(outputs))
        x = LAYERS[name](x, outputs, options, weights)
        outputs.append(x)
    return [outputs[i] for i in heads or [-1]]


def integer(options, name, default):
    return int(options.get(name, default))


def activated(x, options, default):
    kind = options.get("activation", default)
    with np.errstate(over="ignore"):
        sigmoid = 1 / (1 + np.exp(-x))
        growth = np.exp(np.minimum(x, 0)) - 1
    return {
        "linear": x,
        "logistic": sigmoid,
        "swish": x * sigmoid,
        "mish": x * np.tanh(np.log1p(np.exp(x))),
        "relu": np.maximum(x, 0),
        "relu6": np.clip(x, 0, 6),
        "leaky": np.where(x > 0, x, 0.1 * x),
        "tanh": np.tanh(x),
        "elu": np.where(x >= 0, x, growth),
        "selu": np.where(x >= 0, 1.0507 * x, 1.0507 * 1.6732 * growth),
    }[kind]


def normalized(x, biases, statistics):
    scales, means, variances = statistics
    return reference.normalization(x, scales, biases, means, variances, EPSILON)


def statistics(weights, count):
    return [weights.take(each, count) for each in ("scale", "mean", "variance")]


def convolutional(x, outputs, options, weights):
    channels = x.shape[1]
    filters = integer(options, "filters", 1)
    groups = integer(options, "groups", 1)
    size = integer(options, "size", 1)
    stride = integer(options, "stride", 1)
    strides = [integer(options, f"stride_{n}", stride) for n in "yx"]
    dilation = integer(options, "dilation", 1)
    padding = integer(options, "padding", 0)
    if integer(options, "pad", 0):
        padding = size // 2
    biases = weights.take("bias", filters)
    norm = None
    if integer(options, "batch_normalize", 0):
        norm = statistics(weights, filters)
    kernel = weights.take("kernel", filters, channels // groups, size, size)
    around = 2 * [padding * dilation]
    x = reference.convolution(x, kernel, strides, around, 2 * [dilation], groups)
    x = normalized(x, biases, norm) if norm else x + biases.reshape(1, -1, 1, 1)
    return activated(x, options, "logistic")


def connected(x, outputs, options, weights):
    flat = x.reshape(len(x), -1)
    units = integer(options, "output", 1)
    biases = weights.take("bias", units)
    result = flat @ weights.take("kernel", units, flat.shape[1]).T
    if integer(options, "batch_normalize", 0):
        result = normalized(result, biases, statistics(weights, units))
    else:
        result = result + biases
    return activated(result, options, "logistic")[:, :, None, None]


def batchnorm(x, outputs, options, weights):
    biases = weights.take("bias", x.shape[1])
    return normalized(x, biases, statistics(weights, x.shape[1]))


def maxpool(x, outputs, options, weights):
    stride = integer(options, "stride", 1)
    strides = [integer(options, f"stride_{n}", stride) for n in "yx"]
    size = integer(options, "size", stride)
    padding = integer(options, "padding", size - 1)
    count = [
        (pixels + padding - size) // s + 1
        for pixels, s in zip(x.shape[2:], strides, strict=True)
    ]
    return reference.pooling(x, 2 * [size], strides, 2 * [padding // 2], count)


def avgpool(x, outputs, options, weights):
    return x.mean((2, 3), keepdims=True)


def others(outputs, options, key):
    places = [int(word) for word in options[key].split(",")]
    return [outputs[place if place >= 0 else len(outputs) + place] for place in places]


def route(x, outputs, options, weights):
    groups = integer(options, "groups", 1)
    parts = []
    for each in others(outputs, options, "layers"):
        count = each.shape[1] // groups
        first = integer(options, "group_id", 0) * count
        parts.append(each[:, first : first + count])
    return np.concatenate(parts, 1)


def shortcut(x, outputs, options, weights):
    result = x.copy()
    for each in others(outputs, options, "from"):
        count = min(x.shape[1], each.shape[1])
        result[:, :count] += each[:, :count]
    return activated(result, options, "linear")


def product(x, outputs, options, weights):
    (other,) = others(outputs, options, "from")
    return activated(x * other, options, "linear")


def upsample(x, outputs, options, weights):
    stride = integer(options, "stride", 2)
    return float(options.get("scale", 1)) * x.repeat(stride, 2).repeat(stride, 3)


def softmax(x, outputs, options, weights):
    groups = integer(options, "groups", 1)
    grouped = x.reshape(len(x), groups, -1) / float(options.get("temperature", 1))
    return reference.softmax(grouped).reshape(len(x), -1, 1, 1)


def unchanged(x, outputs, options, weights):
    return x


LAYERS = {
    **dict.fromkeys(("convolutional", "conv"), convolutional),
    **dict.fromkeys(("scale_channels", "sam"), product),
    **dict.fromkeys(("dropout", "cost", "yolo", "region"), unchanged),
    "connected": connected,
    "batchnorm": batchnorm,
    "maxpool": maxpool,
    "avgpool": avgpool,
    "route": route,
    "shortcut": shortcut,
    "upsample": upsample,
    "softmax": softmax,
}
