"""Sections of a cfg as stock Keras layers."""

from __future__ import annotations

import re

import keras

from keras_diagwise.importers import files
from keras_diagwise.importers.darknet.cfg import sections_of
from keras_diagwise.importers.graph import Graph, Kind, kind_of
from keras_diagwise.importers.options import MAX_VALUES, Option, Source
from keras_diagwise.importers.steps import LAST, Pair, Step, windows
from keras_diagwise.importers.weights import Weight

EPSILON = 1e-5
MOMENTUM = 0.9
"""Darknet's momentum on a CPU; with cuDNN it is 0.99."""

ACTIVATIONS = {
    "logistic": "sigmoid",
    "swish": "silu",
    **{each: each for each in ("linear", "relu", "relu6", "tanh", "elu", "mish")},
    **dict.fromkeys(("leaky", "selu"), ""),
}
"""Keras's names of Darknet's activations; two use Darknet's own constants."""

TRAINING_ONLY = {
    *("stopbackward", "onlyforward", "dont_update", "burnin_update", "train_only_bn"),
    *("learning_rate", "clip", "grad_centr", "assisted_excitation", "noloss"),
    *("stream", "wait_stream"),
}
"""Options that do not change an output."""


def read(cfg: files.Name) -> tuple[Graph, list[Weight]]:
    """Steps of a cfg, and the weights in the file's order.

    Darknet's layer `i` is step `i + 1`.

    Raises:
        ValueError: if it is not a cfg, or has an unsupported section or option.
    """
    net, *sections = sections_of(cfg) or [Source(cfg, "line 1")]
    if net.what not in ("[net]", "[network]") or not sections:
        raise net.error("a cfg must be [net], and layers behind it", net.what)
    image = net.read(IMAGE, ignored=net.options)
    graph = Graph(net, (image.height, image.width, image.channels))
    weights, heads = [], []
    for own, section in enumerate(sections):
        name = section.what[1:-1]
        name = ALIASES.get(name, name)
        kind = kind_of(KINDS, name, section)
        ignored = section.options if kind in UNREAD else TRAINING_ONLY
        options = section.read(kind.options, ignored)
        inputs = inputs_of(section, kind, own)
        step = graph.add(kind, section, f"{name}_{own}", inputs, options)
        weights += step.ordered(kind.weights)
        heads += [own + 1] if kind is DETECTION else []
    graph.end(heads or [len(sections)])
    return graph, weights


def inputs_of(section: Source, kind: Kind, own: int) -> list[int]:
    """The steps that layer `own` reads: the one before it, some by name, or both."""
    if "layers" in kind.options:
        return named(section, "layers", own)
    return [own, *(named(section, "from", own) if "from" in kind.options else ())]


def named(section: Source, option: str, own: int) -> list[int]:
    """Steps of layers before layer `own`, given by absolute or negative index."""
    words = ",".join(section.words(option)).removesuffix(",").split(",")
    places = [int(n) for n in words if re.fullmatch(r"[+-]?\d{1,9}", n, re.ASCII)]
    places = [place + own if place < 0 else place for place in places]
    if len(places) < len(words) or not all(0 <= place < own for place in places):
        reason = f"`{option}` must be numbers of layers before this, which is {own}"
        raise section.error(reason, f"{option}={','.join(words)}", option)
    return [place + 1 for place in places]


def convolutional(step: Step) -> None:
    o = step.options
    dilation = o.dilation if o.size > 1 else 1
    padding = o.size // 2 if o.pad else o.padding
    if dilation > 1 and o.size != 2 * padding + 1:
        raise step.error("`dilation` takes an odd `size` and pad=1", f"size={o.size}")
    step.convolution(
        o.filters,
        square(o.size),
        strides(step),
        square(dilation * padding),
        square(dilation),
        o.groups,
        use_bias=not o.batch_normalize,
    )
    normalize_and_activate(step)


def connected(step: Step) -> None:
    o = step.options
    step.dense(o.output, use_bias=not o.batch_normalize)
    normalize_and_activate(step)


def normalize_and_activate(step: Step) -> None:
    if step.options.batch_normalize:
        batchnorm(step)
    activate(step)


def batchnorm(step: Step) -> None:
    step.batch_norm(EPSILON, MOMENTUM, suffix="batchnorm")


def activate(step: Step) -> None:
    o = step.options
    name = "activation"
    if o.activation == "leaky":
        step.append(keras.layers.LeakyReLU, name, negative_slope=0.1)
    elif o.activation == "selu":  # Darknet rounds both constants
        step.append(keras.layers.ELU, name, alpha=1.6732)
        step.append(keras.layers.Rescaling, f"{name}_scale", scale=1.0507)
    else:
        step.activation(ACTIVATIONS[o.activation], name)


def square(size: int) -> Pair:
    return size, size


def strides(step: Step) -> Pair:
    o = step.options
    return o.stride_y or o.stride, o.stride_x or o.stride


def maxpool(step: Step) -> None:
    o = step.options
    size = o.size or max(strides(step))
    padding = size - 1 if o.padding is None else o.padding
    if padding >= size:
        raise step.error(f"`padding` must be less than {size}", padding, "padding")
    count = windows(step.shape, square(size), strides(step), square(padding))
    step.pooling("max", square(size), strides(step), square(padding // 2), count)


def route(step: Step) -> None:
    o = step.options
    channels = [shape[2] for shape in step.shapes]
    if o.group_id >= o.groups or any(count % o.groups for count in channels):
        received = f"groups={o.groups}, group_id={o.group_id}, channels={channels}"
        reason = "`groups` must be above `group_id` and divide each layer's channels"
        raise step.error(reason, received, "groups")
    for i, count in enumerate(channels):
        part = count // o.groups
        step.select(i, o.group_id * part, part)
    step.concatenate()


def shortcut(step: Step) -> None:
    """Adds layers, their channels truncated or zero-padded to the first's."""
    height, width, channels = step.shape
    if any(shape[:2] != (height, width) for shape in step.shapes):
        reason = f"`from` must be of {height}×{width} pixels"
        raise step.error(reason, step.shapes[1:])
    for i in range(1, len(step.shapes)):
        step.select(i, 0, channels)
    step.add()
    activate(step)


def scale_channels(step: Step) -> None:
    """Scales another layer per channel, or per pixel with `scale_wh`."""
    product(step, axes=(0, 1) if step.options.scale_wh else (2,))


def sam(step: Step) -> None:
    """Scales another layer elementwise."""
    product(step, axes=(0, 1, 2))


def product(step: Step, axes: tuple[int, ...]) -> None:
    """Multiplies another layer by this one, which has its size along `axes`, else 1."""
    factors, *others = step.shapes
    fitting = tuple(n if axis in axes else 1 for axis, n in enumerate(others[0]))
    if len(others) > 1 or factors != fitting:
        raise step.error(f"`from` must be one layer whose size suits {factors}", others)
    step.append(keras.layers.Multiply, shape=others[0])
    activate(step)


def upsample(step: Step) -> None:
    o = step.options
    height, width, channels = step.shape
    shape = o.stride * height, o.stride * width, channels
    step.append(keras.layers.UpSampling2D, shape=shape, size=o.stride, **LAST)
    if o.scale != 1:
        step.append(keras.layers.Rescaling, "scale", scale=o.scale)


def softmax(step: Step) -> None:
    """Softmax over all values of an image, or over each of several groups."""
    o = step.options
    step.flatten()
    flat = step.shape
    if flat[2] % o.groups:
        raise step.error(f"`groups` must divide {flat[2]}", o.groups, "groups")
    if o.temperature != 1:
        scale = 1 / o.temperature
        step.append(keras.layers.Rescaling, "temperature", scale=scale)
    groups = 1, o.groups, flat[2] // o.groups
    step.reshape(groups, "groups")
    step.append(keras.layers.Softmax)
    step.reshape(flat, "all")


def cost(step: Step) -> None:
    """A loss: passes its input through."""


def detection(step: Step) -> None:
    """A box decoder: its input is an output of the model; its options are unused."""


KERNEL_LAST = ("bias", "beta", "gamma", "moving_mean", "moving_variance", "kernel")
KERNEL_SECOND = ("bias", "beta", "kernel", "gamma", "moving_mean", "moving_variance")

ONE, SIZE = Option(1, least=1), Option(None, least=1)
IMAGE = dict.fromkeys(("height", "width", "channels"), Option(0, least=1))
STRIDES = {"stride": ONE, "stride_x": SIZE, "stride_y": SIZE}
WITH_KERNEL = {
    "batch_normalize": Option(0),
    "activation": Option("logistic", choices=ACTIVATIONS),
}
ACTIVATION = {"activation": Option("linear", choices=ACTIVATIONS)}
FROM = {"from": Option(""), **ACTIVATION}

COST, DETECTION = UNREAD = Kind(cost), Kind(detection)
KINDS = {
    "convolutional": Kind(
        convolutional,
        {
            **dict.fromkeys(("filters", "size", "dilation", "groups"), ONE),
            **dict.fromkeys(("pad", "padding"), Option(0)),
            **STRIDES,
            **WITH_KERNEL,
        },
        KERNEL_LAST,
    ),
    "connected": Kind(connected, {"output": ONE, **WITH_KERNEL}, KERNEL_SECOND),
    "batchnorm": Kind(batchnorm, {}, KERNEL_LAST),
    "maxpool": Kind(maxpool, {"size": SIZE, "padding": Option(None), **STRIDES}),
    "avgpool": Kind(Step.mean),
    "route": Kind(route, {"layers": Option(""), "groups": ONE, "group_id": Option(0)}),
    "shortcut": Kind(shortcut, FROM),
    "scale_channels": Kind(scale_channels, {"scale_wh": Option(0), **FROM}),
    "sam": Kind(sam, FROM),
    "upsample": Kind(
        upsample, {"stride": Option(2, 1), "scale": Option(1.0, -MAX_VALUES)}
    ),
    "softmax": Kind(softmax, {"groups": ONE, "temperature": Option(1.0, 1e-6)}),
    "dropout": Kind(Step.dropout, {"probability": Option(0.2, 0, 1)}, arguments=1),
    "cost": COST,
    "yolo": DETECTION,
    "region": DETECTION,
}
ALIASES = {
    "conv": "convolutional",
    "conn": "connected",
    "max": "maxpool",
    "avg": "avgpool",
    "soft": "softmax",
}
