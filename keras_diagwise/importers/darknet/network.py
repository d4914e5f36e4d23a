"""What the sections of a cfg compute, in stock Keras layers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import keras

from keras_diagwise.importers import files, layers, steps
from keras_diagwise.importers.darknet.cfg import Section, sections_of
from keras_diagwise.importers.graph import MAX_VALUES, Graph, Step
from keras_diagwise.importers.steps import Inputs
from keras_diagwise.importers.weights import Weight

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
        raise net.error("a cfg must be [net], and layers behind it", net.name)
    height, width, channels = (
        net.number(n, 0, 1) for n in ("height", "width", "channels")
    )
    graph = Graph(net.place, (height, width, channels))
    heads = []
    for section in sections:
        kind = KINDS.get(section.name)
        if kind is None:
            supported = ", ".join(f"[{each}]" for each in KINDS)
            raise section.error(f"it must be one of {supported}", section.name)
        own = graph.add(kind(section, graph, f"{kind.__name__}_{len(graph.steps) - 1}"))
        section.check_options()
        if kind is detection:
            heads.append(own)
    outputs = heads or [own]
    graph.used(outputs)
    return graph, outputs


def before(graph: Graph) -> Inputs:
    """What a section reads that names no other: the step before it."""
    return Inputs([len(graph.steps) - 1], [graph.last])


def activation(section: Section, default: str) -> str:
    kind = section.text("activation", default)
    if kind not in ACTIVATIONS:
        reason = f"`activation` must be one of {', '.join(ACTIVATIONS)}"
        raise section.error(reason, kind)
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
    return [steps.vector(section, f"{name}_batchnorm", v, size) for v in variables]


def with_kernel(
    section: Section, name: str, kernel: Weight, apply: Callable, is_last: bool
) -> tuple[Callable, list[Weight]]:
    """What builds a layer with a kernel, and its weights in the file's order.

    Args:
        section: the layer's.
        name: the layer's.
        kernel: its first axis is that of the outputs.
        apply: makes the output, before normalization, of an input, name and `use_bias`.
        is_last: whether the kernel is behind the normalization's weights.
    """
    kind, size = activation(section, "logistic"), kernel.shape[0]
    if section.number("batch_normalize", 0):
        biases, *norm = norm_weights(section, name, size)

        def build(x):
            return activated(normalized(apply(x, name, False), name), name, kind)

        return build, [biases, *norm, kernel] if is_last else [biases, kernel, *norm]
    bias = steps.vector(section, name, "bias", size)
    return lambda x: activated(apply(x, name, True), name, kind), [bias, kernel]


def convolutional(section: Section, graph: Graph, name: str) -> Step:
    channels, inputs = graph.last[2], before(graph)
    size, strides = section.number("size", 1, 1), section.strides()
    dilation = section.number("dilation", 1, 1) if size > 1 else 1
    padding = section.number("padding", 0)
    padding = size // 2 if section.number("pad", 0) else padding
    if dilation > 1 and size != 2 * padding + 1:
        raise section.error("`dilation` takes an odd `size` and pad=1", f"size={size}")
    conv = steps.Convolution(
        section.number("filters", 1, 1),
        (size, size),
        strides,
        (dilation * padding, dilation * padding),
        (dilation, dilation),
        section.number("groups", 1, 1),
    )
    conv.check(section, channels)
    build, weights = with_kernel(
        section, name, conv.kernel(section, name, channels), conv.build, is_last=True
    )
    shape = conv.shape(graph.last)
    return Step(section.place, shape, build, inputs.steps, weights)


def connected(section: Section, graph: Graph, name: str) -> Step:
    units = section.number("output", 1, 1)
    kernel = steps.matrix(section, name, units, math.prod(graph.last))

    def apply(x, name, use_bias):
        return layers.dense(x, name, units, use_bias)

    build, weights = with_kernel(section, name, kernel, apply, is_last=False)
    shape = (1, 1, units)
    return Step(section.place, shape, build, before(graph).steps, weights)


def batchnorm(section: Section, graph: Graph, name: str) -> Step:
    weights = norm_weights(section, name, graph.last[2])
    step = steps.elementwise(section, before(graph), lambda x: normalized(x, name))
    return step._replace(weights=weights)


def maxpool(section: Section, graph: Graph, name: str) -> Step:
    strides = section.strides()
    size = section.number("size", max(strides), 1)
    padding = section.number("padding", size - 1, 0, size - 1)
    sizes, half = (size, size), (padding // 2, padding // 2)
    count = layers.windows(graph.last, sizes, strides, (padding, padding))
    pool = layers.Pooling("max", sizes, strides, half, count)
    return steps.pooling(section, name, before(graph), pool)


def avgpool(section: Section, graph: Graph, name: str) -> Step:
    step = steps.elementwise(section, before(graph), lambda x: layers.mean(x, name))
    return step._replace(shape=(1, 1, graph.last[2]))


def others(section: Section, graph: Graph, option: str) -> Inputs:
    """The layers that an option names."""
    found = [1 + layer for layer in section.layers(option, len(graph.steps) - 1)]
    return Inputs(found, [graph.steps[step].shape for step in found])


def route(section: Section, graph: Graph, name: str) -> Step:
    inputs = others(section, graph, "layers")
    groups = section.number("groups", 1, 1)
    group = section.number("group_id", 0, 0, groups - 1)
    if any(shape[2] % groups for shape in inputs.shapes):
        reason = f"`groups`, {groups}, must divide the channels of each of `layers`"
        raise section.error(reason, inputs.shapes)
    step = steps.concatenate(section, name, inputs)

    def build(*tensors):
        parts = [
            layers.channels(x, f"{name}_part_{i}", group, groups)
            for i, x in enumerate(tensors)
        ]
        return step.build(*parts)

    height, width, channels = step.shape
    return step._replace(build=build, shape=(height, width, channels // groups))


def shortcut(section: Section, graph: Graph, name: str) -> Step:
    """Adds layers: of those with more channels the first, of others zeros behind."""
    inputs, kind = others(section, graph, "from"), activation(section, "linear")
    height, width, channels = graph.last
    if any(shape[:2] != (height, width) for shape in inputs.shapes):
        reason = f"`from` must be of {height}×{width} pixels"
        raise section.error(reason, inputs.shapes)

    def build(x, *tensors):
        parts = [
            layers.with_channels(each, f"{name}_part_{i}", channels)
            for i, each in enumerate(tensors)
        ]
        return activated(layers.add([x, *parts], name), name, kind)

    sources = (*before(graph).steps, *inputs.steps)
    return Step(section.place, graph.last, build, sources)


def scale_channels(section: Section, graph: Graph, name: str) -> Step:
    """Another layer, times a factor for each channel or, by `scale_wh`, each pixel."""
    axes = (0, 1) if section.number("scale_wh", 0) else (2,)
    return product(section, graph, name, axes)


def sam(section: Section, graph: Graph, name: str) -> Step:
    """Another layer, times a factor for each of its values."""
    return product(section, graph, name, (0, 1, 2))


def product(section: Section, graph: Graph, name: str, axes: tuple[int, ...]) -> Step:
    """Another layer times this, which has its size in some axes, and 1 in others."""
    inputs, kind = others(section, graph, "from"), activation(section, "linear")
    factors = [n if axis in axes else 1 for axis, n in enumerate(inputs.shape)]
    if len(inputs.steps) > 1 or graph.last != tuple(factors):
        reason = f"`from` must be one layer whose size suits {graph.last}"
        raise section.error(reason, inputs.shapes)

    def build(x, other):
        return activated(layers.multiply([other, x], name), name, kind)

    sources = (*before(graph).steps, *inputs.steps)
    return Step(section.place, inputs.shape, build, sources)


def upsample(section: Section, graph: Graph, name: str) -> Step:
    height, width, channels = graph.last
    stride = section.number("stride", 2, 1)
    scale = section.number("scale", 1, -MAX_VALUES, kind=float)
    step = steps.elementwise(
        section, before(graph), lambda x: layers.upsampling(x, name, stride, scale)
    )
    return step._replace(shape=(stride * height, stride * width, channels))


def softmax(section: Section, graph: Graph, name: str) -> Step:
    """Of all values of an image, or of each of several groups of them."""
    groups = section.number("groups", 1, 1)
    temperature = section.number("temperature", 1, 1e-6, kind=float)
    values = math.prod(graph.last)
    if values % groups:
        raise section.error(f"`groups` must divide {values}", groups)
    build = functools.partial(
        layers.softmax, name=name, groups=groups, temperature=temperature
    )
    step = steps.elementwise(section, before(graph), build)
    return step._replace(shape=(1, 1, values))


def dropout(section: Section, graph: Graph, name: str) -> Step:
    rate = section.number("probability", 0.2, 0, 1, float)
    return steps.dropout(section, name, before(graph), rate)


def cost(section: Section, graph: Graph, name: str) -> Step:
    """A loss: its input goes through."""
    section.options.clear()
    return steps.elementwise(section, before(graph), lambda x: x)


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
