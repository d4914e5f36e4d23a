"""What the sections of a cfg compute, in stock Keras layers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import keras

from keras_diagwise.importers import files, layers
from keras_diagwise.importers.darknet.cfg import Section, sections_of
from keras_diagwise.importers.graph import MOST_VALUES, Graph, Shape, Step
from keras_diagwise.importers.weights import MATRIX, VECTOR, Weight

EPSILON = 1e-5
MOMENTUM = 0.9
"""Darknet's on a CPU; with cuDNN it is 0.99."""

ACTIVATIONS = {
    "logistic": "sigmoid",
    "swish": "silu",
    **{each: each for each in ("linear", "relu", "relu6", "tanh", "elu", "mish")},
    **dict.fromkeys(("leaky", "selu"), ""),
}
"""Keras's names of Darknet's; two have constants of Darknet's own."""


def network(cfg: files.Name) -> tuple[Graph, list[int]]:
    """The steps of a cfg, Darknet's layer `i` being step `i + 1`, and the outputs.

    Raises:
        ValueError: if it is no cfg, or has what is not supported.
    """
    net, *sections = sections_of(cfg) or [Section(cfg, 1, "")]
    if net.name not in ("net", "network") or not sections:
        raise net.error("a cfg must be [net], and layers behind it", first=net.name)
    height, width, channels = (
        net.number(n, 0, 1) for n in ("height", "width", "channels")
    )
    graph = Graph(net.place, (height, width, channels))
    heads = []
    for section in sections:
        kind = KINDS.get(section.name)
        if kind is None:
            supported = ", ".join(f"[{each}]" for each in KINDS)
            raise section.error(f"it must be one of {supported}", section=section.name)
        own = graph.add(kind(section, graph, f"{kind.__name__}_{len(graph.steps) - 1}"))
        section.check_options()
        if kind is detection:
            heads.append(own)
    outputs = heads or [own]
    graph.used(outputs)
    return graph, outputs


def after(
    section: Section,
    graph: Graph,
    shape: Shape,
    build: Callable,
    weights: Sequence = (),
) -> Step:
    """A step that reads the one before it."""
    return Step(section.place, shape, build, (len(graph.steps) - 1,), weights)


def activation(section: Section, default: str) -> str:
    kind = section.text("activation", default)
    if kind not in ACTIVATIONS:
        reason = f"`activation` must be one of {', '.join(ACTIVATIONS)}"
        raise section.error(reason, activation=kind)
    return kind


def activated(x, name: str, kind: str):
    name = f"{name}_activation"
    if kind == "leaky":
        return keras.layers.LeakyReLU(negative_slope=0.1, name=name)(x)
    if kind == "selu":  # of which Darknet rounds both constants
        x = keras.layers.ELU(alpha=1.6732, name=name)(x)
        return keras.layers.Rescaling(1.0507, name=f"{name}_scale")(x)
    return layers.activation(x, name, ACTIVATIONS[kind])


def normalized(x, name: str):
    return layers.batch_norm(x, f"{name}_batchnorm", EPSILON, MOMENTUM)


def norm_weights(section: Section, name: str, size: int) -> list[Weight]:
    """Those of batch normalization, in the file's order."""
    variables = ("beta", "gamma", "moving_mean", "moving_variance")
    layer, place = f"{name}_batchnorm", section.place
    return [Weight(f"{v} of {place}", layer, v, (size,), VECTOR) for v in variables]


def with_kernel(
    section: Section, name: str, kernel: Weight, apply: Callable, kernel_is_last: bool
) -> tuple[Callable, Sequence[Weight]]:
    """What builds a layer with a kernel, and its weights in the file's order.

    Args:
        section: the layer's.
        name: the layer's.
        kernel: its first axis is that of the outputs.
        apply: makes the output, before normalization, of an input and `use_bias`.
        kernel_is_last: whether it stands behind the normalization's weights.
    """
    kind = activation(section, "logistic")
    size = kernel.shape[0]
    if section.number("batch_normalize", 0):
        biases, *norm = norm_weights(section, name, size)

        def build(x):
            return activated(normalized(apply(x, False), name), name, kind)

        weights = [biases, *norm, kernel] if kernel_is_last else [biases, kernel, *norm]
        return build, weights
    bias = Weight(f"bias of {section.place}", name, "bias", (size,), VECTOR)
    return lambda x: activated(apply(x, True), name, kind), [bias, kernel]


def convolutional(section: Section, graph: Graph, name: str) -> Step:
    channels = graph.last[2]
    filters = section.number("filters", 1, 1)
    groups = section.number("groups", 1, 1)
    size = section.number("size", 1, 1)
    strides = section.strides()
    dilation = section.number("dilation", 1, 1) if size > 1 else 1
    padding = section.number("padding", 0)
    padding = size // 2 if section.number("pad", 0) else padding
    if channels % groups or filters % groups:
        reason = f"`groups` must divide `filters` and the input's {channels} channels"
        raise section.error(reason, groups=groups, filters=filters)
    if dilation > 1 and (size != 2 * padding + 1 or strides != (1, 1)):
        reason = "`dilation` takes an odd `size`, pad=1 and stride=1"
        raise section.error(reason, size=size, padding=padding, strides=strides)
    axes = layers.kernel_axes(channels, filters, groups, strides)
    shape = (filters, channels // groups, size, size)
    kernel = Weight(f"kernel of {section.place}", name, "kernel", shape, axes)
    around = dilation * padding

    def apply(x, use_bias):
        pairs = (size, size), strides, (around, around), (dilation, dilation)
        return layers.convolution(x, name, filters, *pairs, groups, use_bias)

    build, weights = with_kernel(section, name, kernel, apply, kernel_is_last=True)
    pixels = layers.windows(
        graph.last, (size, size), strides, (2 * padding, 2 * padding)
    )
    return after(section, graph, (*pixels, filters), build, weights)


def connected(section: Section, graph: Graph, name: str) -> Step:
    units = section.number("output", 1, 1)
    shape = (units, math.prod(graph.last))
    kernel = Weight(f"kernel of {section.place}", name, "kernel", shape, MATRIX)

    def apply(x, use_bias):
        return layers.dense(x, name, units, use_bias)

    build, weights = with_kernel(section, name, kernel, apply, kernel_is_last=False)
    return after(section, graph, (1, 1, units), build, weights)


def batchnorm(section: Section, graph: Graph, name: str) -> Step:
    weights = norm_weights(section, name, graph.last[2])
    return after(section, graph, graph.last, lambda x: normalized(x, name), weights)


def maxpool(section: Section, graph: Graph, name: str) -> Step:
    strides = section.strides()
    size = section.number("size", max(strides), 1)
    padding = section.number("padding", size - 1, 0, size - 1)
    sizes, total = (size, size), (padding, padding)
    outputs = layers.windows(graph.last, sizes, strides, total)
    before = (padding // 2, padding // 2)

    def build(x):
        return layers.max_pooling(x, name, sizes, strides, before, outputs)

    return after(section, graph, (*outputs, graph.last[2]), build)


def avgpool(section: Section, graph: Graph, name: str) -> Step:
    shape = (1, 1, graph.last[2])
    return after(section, graph, shape, lambda x: layers.mean(x, name))


def route(section: Section, graph: Graph, name: str) -> Step:
    sources, shapes = other_layers(section, graph, "layers")
    groups = section.number("groups", 1, 1)
    group = section.number("group_id", 0, 0, groups - 1)
    if len({shape[:2] for shape in shapes}) > 1:
        raise section.error("`layers` must be of one size", shapes=shapes)
    if any(shape[2] % groups for shape in shapes):
        reason = "`groups` must divide the channels of each of `layers`"
        raise section.error(reason, groups=groups, shapes=shapes)

    def build(*tensors):
        parts = [
            layers.channels(x, f"{name}_part_{i}", group, groups)
            for i, x in enumerate(tensors)
        ]
        return layers.concatenate(parts, name)

    channels = sum(shape[2] for shape in shapes) // groups
    return Step(section.place, (*shapes[0][:2], channels), build, sources)


def shortcut(section: Section, graph: Graph, name: str) -> Step:
    """Adds layers: of those with more channels the first, of others zeros behind."""
    sources, shapes = other_layers(section, graph, "from")
    kind = activation(section, "linear")
    height, width, channels = graph.last
    if any(shape[:2] != (height, width) for shape in shapes):
        raise section.error(f"`from` must be of {height}×{width} pixels", shapes=shapes)

    def build(x, *tensors):
        others = [
            layers.with_channels(each, f"{name}_part_{i}", channels)
            for i, each in enumerate(tensors)
        ]
        return activated(layers.add([x, *others], name), name, kind)

    return Step(section.place, graph.last, build, (len(graph.steps) - 1, *sources))


def other_layers(section: Section, graph: Graph, option: str):
    """The steps that an option names, and their shapes."""
    sources = [1 + layer for layer in section.layers(option, len(graph.steps) - 1)]
    return sources, [graph.steps[source].shape for source in sources]


def scale_channels(section: Section, graph: Graph, name: str) -> Step:
    """Another layer, times a factor for each channel or, by `scale_wh`, each pixel."""
    pixelwise = section.number("scale_wh", 0)
    return product(section, graph, name, slice(2) if pixelwise else slice(2, 3))


def sam(section: Section, graph: Graph, name: str) -> Step:
    """Another layer, times a factor for each of its values."""
    return product(section, graph, name, slice(3))


def product(section: Section, graph: Graph, name: str, axes: slice) -> Step:
    """Another layer times this, which has its size in some axes, and 1 in others."""
    (source, *more), (shape, *_) = other_layers(section, graph, "from")
    factors = [1, 1, 1]
    factors[axes] = shape[axes]
    if more or graph.last != tuple(factors):
        reason = f"`from` must be one layer whose size suits {graph.last}"
        raise section.error(reason, shape=shape)
    kind = activation(section, "linear")

    def build(x, other):
        return activated(layers.multiply([other, x], name), name, kind)

    return Step(section.place, shape, build, (len(graph.steps) - 1, source))


def upsample(section: Section, graph: Graph, name: str) -> Step:
    height, width, channels = graph.last
    stride = section.number("stride", 2, 1)
    scale = section.number("scale", 1, -MOST_VALUES, kind=float)
    shape = (stride * height, stride * width, channels)
    return after(
        section, graph, shape, lambda x: layers.upsampling(x, name, stride, scale)
    )


def softmax(section: Section, graph: Graph, name: str) -> Step:
    groups = section.number("groups", 1, 1)
    temperature = section.number("temperature", 1, 1e-6, kind=float)
    values = math.prod(graph.last)
    if values % groups:
        raise section.error(f"`groups` must divide {values}", groups=groups)
    build = functools.partial(
        layers.softmax, name=name, groups=groups, temperature=temperature
    )
    return after(section, graph, (1, 1, values), build)


def dropout(section: Section, graph: Graph, name: str) -> Step:
    rate = section.number("probability", 0.2, 0, 1, float)
    return after(section, graph, graph.last, lambda x: layers.dropout(x, name, rate))


def cost(section: Section, graph: Graph, name: str) -> Step:
    """A loss: its input goes through."""
    section.options.clear()
    return after(section, graph, graph.last, lambda x: x)


def detection(section: Section, graph: Graph, name: str) -> Step:
    """Boxes: its input is an output; its options, which say how to read it, are not
    used."""
    return cost(section, graph, name)


KINDS: dict[str, Callable[[Section, Graph, str], Step]] = {
    **dict.fromkeys(("conv", "convolutional"), convolutional),
    **dict.fromkeys(("conn", "connected"), connected),
    **dict.fromkeys(("max", "maxpool"), maxpool),
    **dict.fromkeys(("avg", "avgpool"), avgpool),
    **dict.fromkeys(("soft", "softmax"), softmax),
    **dict.fromkeys(("yolo", "region"), detection),
    "batchnorm": batchnorm,
    "route": route,
    "shortcut": shortcut,
    "scale_channels": scale_channels,
    "sam": sam,
    "upsample": upsample,
    "dropout": dropout,
    "cost": cost,
}
