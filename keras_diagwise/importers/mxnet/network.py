"""Nodes of a symbol as stock Keras layers."""

from __future__ import annotations

from collections.abc import Sequence

from keras_diagwise.importers.graph import Graph, Kind, kind_of
from keras_diagwise.importers.mxnet.params import Arrays
from keras_diagwise.importers.mxnet.symbol import Node
from keras_diagwise.importers.options import COUNT, MAX_VALUES, PADDING, PAIR, Option
from keras_diagwise.importers.steps import Shape, Step
from keras_diagwise.importers.weights import Weight

HINTS = {
    *("workspace", "cudnn_tune", "cudnn_off", "num_args"),
    *("grad_scale", "normalization", "smooth_alpha", "ignore_label", "use_ignore"),
}
"""Attributes that do not change an output."""


class Network:
    """A symbol as steps.

    Args:
        nodes: nodes of the symbol.
        outputs: indices of its outputs.
        image: height, width, channels.

    Attributes:
        graph: the steps.
        weights: weights by parameter name, with the prefix `arg:` or `aux:`.

    Raises:
        ValueError: if a node is not supported.
    """

    def __init__(self, nodes: Sequence[Node], outputs: Sequence[int], image: Shape):
        self.graph = Graph(nodes[0].source, image)
        self.weights: dict[str, Weight] = {}
        self._nodes = nodes
        self._image: int | None = None
        self._steps: dict[int, int] = {}
        for i, node in enumerate(nodes):
            if node.op != "null":
                self._add(i, node)
        self.graph.end([self._step(i, nodes[i]) for i in outputs])

    def _add(self, i: int, node: Node) -> None:
        """Adds the step of a node."""
        op, source = kind_of(OPS, node.op, node.source), node.source
        options = source.read(op.options, HINTS)
        read = node.inputs if op.reads_all else node.inputs[:1]
        inputs = [self._step(each, node) for each in read]
        if not inputs:
            raise source.error("it must have an input", inputs)
        name = f"{op.append.__name__}_{i}"
        step = self.graph.add(op, source, name, inputs, options)
        for number, weight in enumerate(step.ordered(op.weights), 1):
            self.weights[self._parameter(node, number, weight)] = weight
        self._steps[i] = len(self.graph.steps) - 1

    def _step(self, i: int, node: Node) -> int:
        """Index of the step that computes node `i`; a variable is the image."""
        if self._nodes[i].op != "null":
            return self._steps[i]
        if self._image not in (None, i):
            names = self._nodes[self._image].name, self._nodes[i].name
            raise node.source.error("a symbol must have one image", names)
        self._image = i
        return 0

    def _parameter(self, node: Node, number: int, weight: Weight) -> str:
        """Name of the parameter that is input `number` of a node."""
        inputs = [self._nodes[i] for i in node.inputs]
        if number >= len(inputs) or inputs[number].op != "null":
            reason = f"input {number} must be a parameter"
            raise node.source.error(reason, len(inputs))
        kind = "aux" if weight.variable.startswith("moving") else "arg"
        name = f"{kind}:{inputs[number].name}"
        if name in self.weights:
            raise node.source.error("parameters must not be shared", name)
        return name


def channels_of(nodes: Sequence[Node], arrays: Arrays) -> int:
    """Channels of the image, from the parameter of the first node that reads it.

    Raises:
        ValueError: if no Convolution or BatchNorm with parameters reads it.
    """
    for node in nodes:
        inputs = [nodes[i] for i in node.inputs]
        if len(inputs) > 1 and inputs[0].op == "null":
            _, shape = arrays.get(f"arg:{inputs[1].name}", (0, ()))
            if (node.op, len(shape)) == ("Convolution", 4):
                options = node.source.read(GROUPS, ignored=node.source.options)
                return shape[1] * options.num_group
            if (node.op, len(shape)) == ("BatchNorm", 1):
                return shape[0]
            break
    reason = "the image must be read by a Convolution or BatchNorm with parameters"
    raise nodes[0].source.error(reason, "none")


def convolution(step: Step) -> None:
    o = step.options
    places = o.kernel, o.stride, o.pad, o.dilate
    step.convolution(o.num_filter, *places, o.num_group, use_bias=not o.no_bias)


def batch_norm(step: Step) -> None:
    o = step.options
    step.batch_norm(o.eps, o.momentum, scale=not o.fix_gamma)


def fully_connected(step: Step) -> None:
    step.dense(step.options.num_hidden, use_bias=not step.options.no_bias)


def clip(step: Step) -> None:
    o = step.options
    if o.a_min != 0 or o.a_max <= 0:
        raise step.error("it must clip from 0", (o.a_min, o.a_max))
    step.relu(most=o.a_max)


def pooling(step: Step) -> None:
    o = step.options
    has_padding = any(o.pad) and not o.global_pool
    if not o.count_include_pad and o.pool_type == "avg" and has_padding:
        raise step.error("`count_include_pad` must be True", False)
    places = o.pool_type, o.kernel, o.stride, o.pad
    step.padded_pooling(*places, o.global_pool, o.pooling_convention == "full")


def identity(step: Step) -> None:
    """Passes its input through."""


LAYOUT = {"layout": Option("NCHW", choices=("NCHW", "None"))}
GROUPS = {"num_group": Option(1, least=1)}
NO_BIAS = {"no_bias": Option(False)}
CONVOLUTION = {
    "num_filter": COUNT,
    "kernel": Option(0, least=1, values=2),
    **{"stride": PAIR, "pad": PADDING, "dilate": PAIR},
    **GROUPS,
    **NO_BIAS,
    **LAYOUT,
}
POOLING = {
    "pool_type": Option("max", choices=("max", "avg")),
    "pooling_convention": Option("valid", choices=("valid", "full")),
    **{"kernel": PAIR, "stride": PAIR, "pad": PADDING},
    **LAYOUT,
    **{"global_pool": Option(False), "count_include_pad": Option(True)},
}
BATCH_NORM = {
    **{"eps": Option(1e-3), "momentum": Option(0.9), "fix_gamma": Option(True)},
    "axis": Option("1", choices=("1",)),
}
FLATTEN = {"flatten": Option("True", choices=("True", "1"))}
ACT_TYPE = {"act_type": Option("", choices=("relu", "sigmoid", "tanh"))}
LIMITS = dict.fromkeys(("a_min", "a_max"), Option(0.0, -MAX_VALUES))
RATE = {"p": Option(0.5, 0, 1), "mode": Option("training", choices=("training",))}
AXIS = {"axis": Option("-1", choices=("-1", "1"))}
DIM = {"dim": Option("1", choices=("1",))}

KERNEL = ("kernel", "bias")
NORM = ("gamma", "beta", "moving_mean", "moving_variance")
"""In the order of a node's inputs after the first."""

SOFTMAX = Kind(Step.softmax, AXIS)
"""Reads the first input only: the labels of `SoftmaxOutput` are for the loss."""

ADD, MULTIPLY = (Kind(each, reads_all=True) for each in (Step.add, Step.multiply))
CONCATENATE = Kind(Step.concatenate, DIM, reads_all=True)

OPS = {
    "Convolution": Kind(convolution, CONVOLUTION, KERNEL),
    "BatchNorm": Kind(batch_norm, BATCH_NORM, NORM),
    "FullyConnected": Kind(
        fully_connected, {"num_hidden": COUNT, **NO_BIAS, **FLATTEN}, KERNEL
    ),
    "Activation": Kind(Step.activation, ACT_TYPE, arguments=1),
    "clip": Kind(clip, LIMITS),
    "Pooling": Kind(pooling, POOLING),
    "Flatten": Kind(Step.flatten),
    "Dropout": Kind(Step.dropout, RATE, arguments=1),
    **dict.fromkeys(("softmax", "SoftmaxOutput", "SoftmaxActivation"), SOFTMAX),
    **dict.fromkeys(("elemwise_add", "broadcast_add", "_Plus", "add_n"), ADD),
    **dict.fromkeys(("elemwise_mul", "broadcast_mul", "_Mul"), MULTIPLY),
    **dict.fromkeys(("Concat", "concat"), CONCATENATE),
    **dict.fromkeys(("_copy", "identity", "BlockGrad"), Kind(identity)),
}
