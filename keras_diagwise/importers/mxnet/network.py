"""What the nodes of a symbol compute, in stock Keras layers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import keras

from keras_diagwise.importers import layers, steps
from keras_diagwise.importers.graph import Graph, Shape, Step
from keras_diagwise.importers.mxnet.params import Arrays
from keras_diagwise.importers.mxnet.symbol import Node, Symbol
from keras_diagwise.importers.steps import Inputs
from keras_diagwise.importers.weights import Weight

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

    def inputs(self, node: Node, least: int = 1, most: int = 1) -> Inputs:
        """What a node reads, which must be of `least` to `most` tensors."""
        found = [self._step(i, node) for i in node.inputs[:most]]
        if len(found) < least:
            raise node.error(f"it must have {least} inputs or more", len(found))
        return Inputs(found, [self.graph.steps[step].shape for step in found])

    def parameter(self, node: Node, number: int, kind: str = "arg") -> str:
        """The name of the parameter that is an input of a node, taken for it."""
        inputs = [self._nodes[i] for i in node.inputs]
        if number >= len(inputs) or inputs[number].op != "null":
            raise node.error(f"input {number} must be a parameter", len(inputs))
        name = f"{kind}:{inputs[number].name}"
        if name in self.weights or name in self.ones:
            raise node.error("parameters must not be shared", name)
        return name

    def take(self, node: Node, kernel: Weight, units: int) -> list[Weight]:
        """A layer's kernel and, unless it has none, its bias."""
        weights = [kernel]
        if not node.flag("no_bias"):
            weights.append(steps.vector(node, kernel.layer, "bias", units))
        for number, weight in enumerate(weights, 1):
            self.weights[self.parameter(node, number)] = weight
        return weights


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
    inputs = net.inputs(node)
    conv = steps.Convolution(
        node.integer("num_filter"),
        node.pair("kernel", 0),
        node.pair("stride", 1),
        node.pair("pad", 0, 0),
        node.pair("dilate", 1),
        node.integer("num_group", 1),
    )
    node.text("layout", "NCHW", ("NCHW", "None"))
    channels = inputs.shape[2]
    conv.check(node, channels)
    weights = net.take(node, conv.kernel(node, name, channels), conv.filters)

    def build(x):
        return conv.build(x, name, len(weights) > 1)

    return Step(node.place, conv.shape(inputs.shape), build, inputs.steps, weights)


def batch_norm(node: Node, net: Network, name: str) -> Step:
    inputs = net.inputs(node)
    node.text("axis", "1", ("1",))
    epsilon, momentum = node.number("eps", 1e-3), node.number("momentum", 0.9)
    scales, size = not node.flag("fix_gamma", True), inputs.shape[2]
    weights = []
    for number, (variable, kind) in enumerate(NORM.items(), 1):
        parameter = net.parameter(node, number, kind)
        if variable == "gamma" and not scales:
            net.ones[parameter] = size
        else:
            weights.append(steps.vector(node, name, variable, size))
            net.weights[parameter] = weights[-1]

    def build(x):
        return layers.batch_norm(x, name, epsilon, momentum, scale=scales)

    return Step(node.place, inputs.shape, build, inputs.steps, weights)


def fully_connected(node: Node, net: Network, name: str) -> Step:
    inputs, units = net.inputs(node), node.integer("num_hidden")
    node.text("flatten", "True", ("True", "1"))
    kernel = steps.matrix(node, name, units, math.prod(inputs.shape))
    weights = net.take(node, kernel, units)

    def build(x):
        return layers.dense(x, name, units, len(weights) > 1)

    return Step(node.place, (1, 1, units), build, inputs.steps, weights)


def activation(node: Node, net: Network, name: str) -> Step:
    kind = node.text("act_type", "", ("relu", "sigmoid", "tanh"))
    build = functools.partial(layers.activation, name=name, kind=kind)
    return steps.elementwise(node, net.inputs(node), build)


def clip(node: Node, net: Network, name: str) -> Step:
    least, most = node.number("a_min", math.nan), node.number("a_max", math.nan)
    if least != 0 or most <= 0:
        raise node.error("it must clip from 0", (least, most))
    relu = keras.layers.ReLU
    return steps.elementwise(
        node, net.inputs(node), lambda x: relu(max_value=most, name=name)(x)
    )


def pooling(node: Node, net: Network, name: str) -> Step:
    inputs = net.inputs(node)
    kind = node.text("pool_type", "max", ("max", "avg"))
    size, strides = node.pair("kernel", 1), node.pair("stride", 1)
    padding = node.pair("pad", 0, 0)
    is_full = node.text("pooling_convention", "valid", ("valid", "full")) == "full"
    node.text("layout", "NCHW", ("NCHW", "None"))
    if node.flag("global_pool"):
        size, strides, padding = inputs.shape[:2], (1, 1), (0, 0)
    if not node.flag("count_include_pad", True) and kind == "avg" and any(padding):
        raise node.error("`count_include_pad` must be True", False)
    count = layers.windows(
        inputs.shape, size, strides, steps.twice(padding), is_ceil=is_full
    )
    pool = layers.Pooling(kind, size, strides, padding, count)
    return steps.pooling(node, name, inputs, pool)


def identity(node: Node, net: Network, name: str) -> Step:
    return steps.elementwise(node, net.inputs(node), lambda x: x)


def dropout(node: Node, net: Network, name: str) -> Step:
    node.text("mode", "training", ("training",))
    return steps.dropout(node, name, net.inputs(node), node.number("p", 0.5))


def flatten(node: Node, net: Network, name: str) -> Step:
    return steps.flatten(node, name, net.inputs(node))


def softmax(node: Node, net: Network, name: str) -> Step:
    """The labels that `SoftmaxOutput` reads are left to the loss."""
    node.text("axis", "-1", ("-1", "1"))
    return steps.softmax(node, name, net.inputs(node))


def add(node: Node, net: Network, name: str) -> Step:
    return steps.add(node, name, net.inputs(node, 2, len(node.inputs)))


def multiply(node: Node, net: Network, name: str) -> Step:
    return steps.multiply(node, name, net.inputs(node, 2, 2))


def concat(node: Node, net: Network, name: str) -> Step:
    node.text("dim", "1", ("1",))
    return steps.concatenate(node, name, net.inputs(node, 1, len(node.inputs)))


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
