"""What the nodes of a symbol compute, in stock Keras layers."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras

from keras_diagwise.importers import layers
from keras_diagwise.importers.graph import Graph, Shape, Step
from keras_diagwise.importers.mxnet.params import Arrays
from keras_diagwise.importers.mxnet.symbol import Node, Symbol
from keras_diagwise.importers.weights import MATRIX, VECTOR, Weight

NORM = {
    "gamma": "arg",
    "beta": "arg",
    "moving_mean": "aux",
    "moving_variance": "aux",
}
"""Keras's variables in the order of MXNet's inputs, and what they are to it."""


class Network:
    """A symbol as steps.

    Args:
        symbol: its nodes.
        image: height, width, channels.

    Attributes:
        graph: the steps.
        outputs: those that are outputs.
        weights: by the name of the parameter, with `arg:` or `aux:` before it.
        ones: how many values a parameter has that is always 1.

    Raises:
        ValueError: if a node is not supported.
    """

    def __init__(self, symbol: Symbol, image: Shape):
        self.graph = Graph(f"{symbol.path}, node 0, the image", image)
        self.weights: dict[str, Weight] = {}
        self.ones: dict[str, int] = {}
        self._nodes = symbol.nodes
        self._image: int | None = None
        self._steps: dict[int, int] = {}
        for i, node in enumerate(symbol.nodes):
            if node.op != "null":
                self._add(i, node)
        self.outputs = [self._step(i, symbol.nodes[i]) for i in symbol.outputs]
        self.graph.used(self.outputs)

    def _add(self, i: int, node: Node) -> None:
        if node.op not in OPS:
            raise node.error(f"the op must be one of {', '.join(OPS)}", node.op)
        op = OPS[node.op]
        step = op(node, self, f"{op.__name__}_{i}")
        node.check_attributes()
        self._steps[i] = self.graph.add(step)

    def _step(self, i: int, node: Node) -> int:
        """The step that computes a node's tensor; a variable is the image."""
        if self._nodes[i].op != "null":
            return self._steps[i]
        if self._image not in (None, i):
            names = self._nodes[self._image].name, self._nodes[i].name
            raise node.error("a symbol must have one image", names)
        self._image = i
        return 0

    def tensors(
        self, node: Node, least: int, most: int
    ) -> tuple[list[int], list[Shape]]:
        """The steps that a node reads, of which `least` to `most` must be, and their
        shapes."""
        steps = [self._step(i, node) for i in node.inputs[:most]]
        if len(steps) < least:
            raise node.error(f"it must have {least} inputs or more", len(steps))
        return steps, [self.graph.steps[step].shape for step in steps]

    def parameter(self, node: Node, number: int, kind: str) -> str:
        """The name of the parameter that is an input of a node, taken for it."""
        inputs = [self._nodes[i] for i in node.inputs]
        if number >= len(inputs) or inputs[number].op != "null":
            raise node.error(f"input {number} must be a parameter", len(inputs))
        name = f"{kind}:{inputs[number].name}"
        if name in self.weights or name in self.ones:
            raise node.error("parameters must not be shared", name)
        return name

    def weight(self, node: Node, number: int, layer: str, *rest, kind="arg") -> Weight:
        """The weight of the layer that a node becomes, at an input of it.

        Args:
            node: the node.
            number: of the input.
            layer: name of the layer.
            *rest: variable, shape and axes of a `Weight`.
            kind: what it is to MXNet.
        """
        name = self.parameter(node, number, kind)
        self.weights[name] = Weight(f"{rest[0]} of {node.place}", layer, *rest)
        return self.weights[name]


def channels_of(symbol: Symbol, arrays: Arrays) -> int:
    """The channels of the image, by the parameter of the first node that reads it.

    Raises:
        ValueError: if there is none.
    """
    for node in symbol.nodes:
        inputs = [symbol.nodes[i] for i in node.inputs]
        if len(inputs) > 1 and inputs[0].op == "null":
            array = arrays.by_name.get(f"arg:{inputs[1].name}")
            shape = array.shape if array else ()
            if node.op == "Convolution" and len(shape) == 4:
                unread = node._replace(attributes=dict(node.attributes))
                return shape[1] * unread.integer("num_group", 1)
            if node.op == "BatchNorm" and len(shape) == 1:
                return shape[0]
            break
    raise ValueError(
        f"{symbol.path}, node 0: the image must be read by a Convolution or BatchNorm "
        "with parameters in the file"
    )


def convolution(node: Node, net: Network, name: str) -> Step:
    sources, (image,) = net.tensors(node, 1, 1)
    size = node.pair("kernel", 0)
    strides, dilation = node.pair("stride", 1), node.pair("dilate", 1)
    padding = node.pair("pad", 0, 0)
    filters, groups = node.integer("num_filter"), node.integer("num_group", 1)
    node.text("layout", "NCHW", ("NCHW", "None"))
    if image[2] % groups or filters % groups:
        raise node.error(f"`num_group` must divide {image[2]} and {filters}", groups)
    if max(dilation) > 1 and max(strides) > 1:
        raise node.error("`dilate` takes a `stride` of 1", strides)
    axes = layers.kernel_axes(image[2], filters, groups, strides)
    shape = (filters, image[2] // groups, *size)
    weights = [net.weight(node, 1, name, "kernel", shape, axes)]
    has_bias = not node.flag("no_bias")
    if has_bias:
        weights.append(net.weight(node, 2, name, "bias", (filters,), VECTOR))

    def build(x):
        pairs = size, strides, padding, dilation
        return layers.convolution(x, name, filters, *pairs, groups, has_bias)

    outputs = layers.windows(image, size, strides, both(padding), dilation)
    return Step(node.place, (*outputs, filters), build, sources, weights)


def batch_norm(node: Node, net: Network, name: str) -> Step:
    sources, (image,) = net.tensors(node, 1, 1)
    node.text("axis", "1", ("1",))
    epsilon, momentum = node.number("eps", 1e-3), node.number("momentum", 0.9)
    scales = not node.flag("fix_gamma", True)
    weights = [
        net.weight(node, 1 + i, name, each, image[2:], VECTOR, kind=kind)
        for i, (each, kind) in enumerate(NORM.items())
        if each != "gamma" or scales
    ]
    if not scales:
        net.ones[net.parameter(node, 1, "arg")] = image[2]

    def build(x):
        return layers.batch_norm(x, name, epsilon, momentum, scale=scales)

    return Step(node.place, image, build, sources, weights)


def fully_connected(node: Node, net: Network, name: str) -> Step:
    sources, (image,) = net.tensors(node, 1, 1)
    units = node.integer("num_hidden")
    node.text("flatten", "True", ("True", "1"))
    weights = [net.weight(node, 1, name, "kernel", (units, math.prod(image)), MATRIX)]
    has_bias = not node.flag("no_bias")
    if has_bias:
        weights.append(net.weight(node, 2, name, "bias", (units,), VECTOR))

    def build(x):
        return layers.dense(x, name, units, has_bias)

    return Step(node.place, (1, 1, units), build, sources, weights)


def activation(node: Node, net: Network, name: str) -> Step:
    kind = node.text("act_type", "", ("relu", "sigmoid", "tanh"))
    return elementwise(node, net, lambda x: layers.activation(x, name, kind))


def clip(node: Node, net: Network, name: str) -> Step:
    least, most = node.number("a_min", math.nan), node.number("a_max", math.nan)
    if least != 0 or most <= 0:
        raise node.error("it must clip from 0", (least, most))
    relu = keras.layers.ReLU
    return elementwise(node, net, lambda x: relu(max_value=most, name=name)(x))


def pooling(node: Node, net: Network, name: str) -> Step:
    sources, (image,) = net.tensors(node, 1, 1)
    kind = node.text("pool_type", "max", ("max", "avg"))
    size, strides = node.pair("kernel", 1), node.pair("stride", 1)
    padding = node.pair("pad", 0, 0)
    is_full = node.text("pooling_convention", "valid", ("valid", "full")) == "full"
    counts_zeros = node.flag("count_include_pad", True) or padding == (0, 0)
    node.text("layout", "NCHW", ("NCHW", "None"))
    if node.flag("global_pool"):
        size, strides, padding, is_full = image[:2], (1, 1), (0, 0), False
    outputs = layers.windows(image, size, strides, both(padding), is_ceil=is_full)
    pool = layers.Pooling(kind, size, strides, padding, outputs)
    if not (counts_zeros or kind == "max") or not pool.can_build(image):
        raise node.error(f"an image of {image} can't be pooled so", pool)
    shape = (*outputs, image[2])
    return Step(node.place, shape, lambda x: pool.build(x, name), sources)


def both(padding: layers.Pair) -> layers.Pair:
    return 2 * padding[0], 2 * padding[1]


def elementwise(node: Node, net: Network, build: Callable) -> Step:
    sources, (image,) = net.tensors(node, 1, 1)
    return Step(node.place, image, build, sources)


def identity(node: Node, net: Network, name: str) -> Step:
    return elementwise(node, net, lambda x: x)


def dropout(node: Node, net: Network, name: str) -> Step:
    node.text("mode", "training", ("training",))
    rate = node.number("p", 0.5)
    if not 0 <= rate < 1:
        raise node.error("`p` must be from 0 to 1", rate)
    return elementwise(node, net, lambda x: layers.dropout(x, name, rate))


def flatten(node: Node, net: Network, name: str) -> Step:
    step = elementwise(node, net, lambda x: layers.one_pixel(x, name))
    return step._replace(shape=(1, 1, math.prod(step.shape)))


def softmax(node: Node, net: Network, name: str) -> Step:
    """Of a vector; the labels that `SoftmaxOutput` reads are left to the loss."""
    step = elementwise(node, net, lambda x: layers.softmax(x, name))
    if node.text("axis", "-1", ("-1", "1")) and step.shape[:2] != (1, 1):
        raise node.error("its input must be a vector", step.shape)
    return step


def add(node: Node, net: Network, name: str) -> Step:
    sources, shapes = net.tensors(node, 2, len(node.inputs))
    if len(set(shapes)) > 1:
        raise node.error("its inputs must have one shape", shapes)
    return Step(node.place, shapes[0], lambda *x: layers.add(list(x), name), sources)


def multiply(node: Node, net: Network, name: str) -> Step:
    """A tensor times another, or times a factor for each channel."""
    sources, shapes = net.tensors(node, 2, 2)
    shape = max(shapes)
    if set(shapes) - {shape, (1, 1, shape[2])}:
        raise node.error("its inputs must have one shape, or one be (1, 1, c)", shapes)
    return Step(node.place, shape, lambda *x: layers.multiply(list(x), name), sources)


def concat(node: Node, net: Network, name: str) -> Step:
    sources, shapes = net.tensors(node, 1, len(node.inputs))
    if node.text("dim", "1", ("1",)) and len({each[:2] for each in shapes}) > 1:
        raise node.error("its inputs must be of one size", shapes)
    shape = (*shapes[0][:2], sum(each[2] for each in shapes))
    return Step(
        node.place, shape, lambda *x: layers.concatenate(list(x), name), sources
    )


OPS: dict[str, Callable[[Node, Network, str], Step]] = {
    "Convolution": convolution,
    "BatchNorm": batch_norm,
    "FullyConnected": fully_connected,
    "Activation": activation,
    "clip": clip,
    "Pooling": pooling,
    "Flatten": flatten,
    "Dropout": dropout,
    **dict.fromkeys(("softmax", "SoftmaxOutput", "SoftmaxActivation"), softmax),
    **dict.fromkeys(("elemwise_add", "broadcast_add", "_Plus", "add_n"), add),
    **dict.fromkeys(("elemwise_mul", "broadcast_mul", "_Mul"), multiply),
    **dict.fromkeys(("Concat", "concat"), concat),
    **dict.fromkeys(("_copy", "identity", "BlockGrad"), identity),
}
