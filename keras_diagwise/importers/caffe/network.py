"""What the layers of a prototxt compute, in stock Keras layers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import keras

from keras_diagwise.importers import layers, steps
from keras_diagwise.importers.caffe.caffemodel import Blob
from keras_diagwise.importers.caffe.prototxt import Message
from keras_diagwise.importers.graph import Graph, Step, short
from keras_diagwise.importers.steps import Inputs
from keras_diagwise.importers.weights import Weight

DEPTHWISE = ("ConvolutionDepthwise", "DepthwiseConvolution")
"""Layers of forks, whose groups are the channels if nothing else is said."""


class Layer:
    """A layer of a prototxt.

    Attributes:
        place: for errors.
        name: the layer's.
        type: what it computes.
        keras_name: of the layer that it becomes.
        fields: its own.
        params: those that are its type's.
        bottoms: the blobs that it reads.
        tops: those that it makes.
    """

    def __init__(self, message: Message, number: int):
        self.name, self.type = message.text("name", ""), message.text("type", "")
        message.what = f"layer {short(self.name)}"
        self.place = message.place
        if self.type not in TYPES:
            raise message.error(
                f"its type must be one of {', '.join(TYPES)}", self.type
            )
        self.keras_name = f"{self.type.lower()}_{number}"
        self.bottoms, self.tops = message.texts("bottom"), message.texts("top")
        self.params = message.message(TYPES[self.type][1])
        self.fields = message

    def error(self, reason: str, received: object) -> ValueError:
        return self.fields.error(reason, received)

    def check_fields(self) -> None:
        self.params.check_fields()
        self.fields.check_fields()


class Network:
    """A prototxt as steps.

    Args:
        net: the file's message.

    Attributes:
        graph: the steps.
        blobs: what the caffemodel holds, in its order.

    Raises:
        ValueError: if a layer is not supported, or the image's size not known.
    """

    def __init__(self, net: Message):
        if "layers" in net.fields:
            raise net.error("Caffe must upgrade a file that has `layers`", "layers")
        found = [Layer(each, i) for i, each in enumerate(net.messages("layer"))]
        is_input = bool(found) and found[0].type == "Input"
        shape = (
            found[0].params.message("shape") if is_input else net.message("input_shape")
        )
        _, channels, height, width = sizes_of(net, shape)
        name = found[0].tops[:1] if is_input else net.texts("input")[:1]
        self.graph = Graph(shape.place, (height, width, channels))
        self._steps = dict.fromkeys(name, 0)
        self.blobs: list[Blob] = []
        self._names: set[str] = set()
        rest = found[is_input:]
        while rest:
            rest = rest[self._add(*rest[:2]) :]
        net.check_fields()
        self.graph.used([self.output])

    @property
    def output(self) -> int:
        return len(self.graph.steps) - 1

    def _add(self, layer: Layer, following: Layer | None = None) -> int:
        """Adds a layer, and returns 2 if the one behind it is a part of it."""
        scale = None
        if following and layer.type == "BatchNorm" and following.type == "Scale":
            scale = following if following.bottoms == layer.tops else None
        op = TYPES[layer.type][0]
        step = op(layer, self) if scale is None else batch_norm(layer, self, scale)
        layer.check_fields()
        tops = layer.tops if scale is None else scale.tops
        if len(tops) != 1:
            raise layer.error("it must have one top", tops)
        self._steps[tops[0]] = self.graph.add(step)
        return 1 if scale is None else 2

    def inputs(self, layer: Layer, least: int = 1) -> Inputs:
        """What a layer reads: one step, or at least `least`."""
        found = [self._steps[each] for each in layer.bottoms if each in self._steps]
        count = len(layer.bottoms)
        if len(found) < count or count < least or least == 1 < count:
            what = "the top of one layer" if least == 1 else "tops of several layers"
            raise layer.error(f"`bottom` must name {what} above", layer.bottoms)
        return Inputs(found, [self.graph.steps[step].shape for step in found])

    def take(self, layer: Layer, *weights: Weight | None) -> list[Weight]:
        """The weights that are a layer's blobs, in this order; `None` is a factor."""
        if layer.name in self._names:
            raise layer.error("two layers must not have one name", layer.name)
        self._names.add(layer.name)
        self.blobs += [
            Blob(layer.place, layer.name, layer.type, number, weight)
            for number, weight in enumerate(weights)
        ]
        return [weight for weight in weights if weight is not None]


def sizes_of(net: Message, shape: Message) -> list[int]:
    """Batch, channels, height and width of the image."""
    sizes = net.numbers("input_dim", []) or shape.numbers("dim", [])
    if len(sizes) != 4:
        raise shape.error(
            "the input must have the sizes of batch, channels, height and width, by "
            "`input_shape`, `input_dim` or a layer of the type Input",
            sizes,
        )
    return sizes


def convolution(layer: Layer, net: Network) -> Step:
    inputs, params, name = net.inputs(layer), layer.params, layer.keras_name
    channels = inputs.shape[2]
    conv = steps.Convolution(
        params.number("num_output", 0, 1),
        params.pair("kernel_size", 0, 1),
        params.pair("stride", 1, 1),
        params.pair("pad", 0, 0),
        params.pair("dilation", 1, 1),
        params.number("group", channels if layer.type in DEPTHWISE else 1, 1),
    )
    conv.check(layer, channels)
    weights = with_bias(layer, net, conv.kernel(layer, name, channels), conv.filters)

    def build(x):
        return conv.build(x, name, len(weights) > 1)

    return Step(layer.place, conv.shape(inputs.shape), build, inputs.steps, weights)


def with_bias(layer: Layer, net: Network, kernel: Weight, units: int) -> list[Weight]:
    """A layer's kernel and, unless it has none, its bias."""
    if not layer.params.flag("bias_term", True):
        return net.take(layer, kernel)
    return net.take(layer, kernel, steps.vector(layer, kernel.layer, "bias", units))


def batch_norm(layer: Layer, net: Network, scale: Layer | None = None) -> Step:
    """Batch normalization, with the Scale behind it if there is one."""
    inputs, params, name = net.inputs(layer), layer.params, layer.keras_name
    epsilon = params.number("eps", 1e-5, 0, 1, float)
    momentum = params.number("moving_average_fraction", 0.999, 0, 1, float)
    params.flag("use_global_stats", True)
    variables = ["moving_mean", "moving_variance"]
    if scale is not None:
        has_bias = scale.params.flag("bias_term", False)
        scale.check_fields()
        variables += ["gamma", "beta"] if has_bias else ["gamma"]
    found = [steps.vector(layer, name, each, inputs.shape[2]) for each in variables]
    weights = net.take(layer, *found[:2], None)
    weights += net.take(scale, *found[2:]) if scale is not None else []

    def build(x):
        settings = {"scale": "gamma" in variables, "center": "beta" in variables}
        return layers.batch_norm(x, name, epsilon, momentum, **settings)

    return Step(layer.place, inputs.shape, build, inputs.steps, weights)


def inner_product(layer: Layer, net: Network) -> Step:
    inputs, name = net.inputs(layer), layer.keras_name
    units = layer.params.number("num_output", 0, 1)
    layer.params.text("axis", "1", ("1",))
    kernel = steps.matrix(layer, name, units, math.prod(inputs.shape))
    weights = with_bias(layer, net, kernel, units)

    def build(x):
        return layers.dense(x, name, units, len(weights) > 1)

    return Step(layer.place, (1, 1, units), build, inputs.steps, weights)


def pooling(layer: Layer, net: Network) -> Step:
    inputs, params = net.inputs(layer), layer.params
    kind = params.text("pool", "MAX", ("MAX", "AVE", "0", "1"))
    is_ceil = params.text("round_mode", "CEIL", ("CEIL", "FLOOR")) == "CEIL"
    size = params.pair("kernel_size", 1, 1)
    strides, padding = params.pair("stride", 1, 1), params.pair("pad", 0, 0)
    image = inputs.shape[:2]
    if params.flag("global_pooling", False):
        size = image
    count = layers.windows(image, size, strides, steps.twice(padding), is_ceil=is_ceil)
    if any(padding):  # Caffe drops a window that begins behind the image
        places = zip(count, strides, image, padding, strict=True)
        rows, columns = (n - ((n - 1) * s >= i + p) for n, s, i, p in places)
        count = rows, columns
    kind = "max" if kind in ("MAX", "0") else "avg"
    pool = layers.Pooling(kind, size, strides, padding, count)
    return steps.pooling(layer, layer.keras_name, inputs, pool)


def relu(layer: Layer, net: Network) -> Step:
    slope = layer.params.number("negative_slope", 0, 0, 1, float)
    settings = {"negative_slope": slope, "name": layer.keras_name}
    most, make = 6 if layer.type == "ReLU6" else None, keras.layers.ReLU
    return steps.elementwise(
        layer, net.inputs(layer), lambda x: make(max_value=most, **settings)(x)
    )


def activation(layer: Layer, net: Network) -> Step:
    kind = {"Sigmoid": "sigmoid", "TanH": "tanh"}[layer.type]
    build = functools.partial(layers.activation, name=layer.keras_name, kind=kind)
    return steps.elementwise(layer, net.inputs(layer), build)


def dropout(layer: Layer, net: Network) -> Step:
    rate = layer.params.number("dropout_ratio", 0.5, 0, 1, float)
    return steps.dropout(layer, layer.keras_name, net.inputs(layer), rate)


def flatten(layer: Layer, net: Network) -> Step:
    return steps.flatten(layer, layer.keras_name, net.inputs(layer))


def softmax(layer: Layer, net: Network) -> Step:
    layer.params.text("axis", "1", ("1",))
    return steps.softmax(layer, layer.keras_name, net.inputs(layer))


def eltwise(layer: Layer, net: Network) -> Step:
    kind = layer.params.text("operation", "SUM", ("SUM", "PROD", "0", "1"))
    combine = steps.add if kind in ("SUM", "1") else steps.multiply
    return combine(layer, layer.keras_name, net.inputs(layer, 2))


def concat(layer: Layer, net: Network) -> Step:
    layer.params.text("axis", "1", ("1",))
    return steps.concatenate(layer, layer.keras_name, net.inputs(layer, 2))


def lone(layer: Layer, net: Network) -> Step:
    """Refuses what must stand elsewhere."""
    where = {"Input": "be the first layer", "Scale": "stand behind a BatchNorm"}
    raise layer.error(f"a layer of the type {layer.type} must {where[layer.type]}", "")


TYPES: dict[str, tuple[Callable[[Layer, Network], Step], str]] = {
    **dict.fromkeys(("Convolution", *DEPTHWISE), (convolution, "convolution_param")),
    **dict.fromkeys(("ReLU", "ReLU6"), (relu, "relu_param")),
    **dict.fromkeys(("Sigmoid", "TanH"), (activation, "")),
    "BatchNorm": (batch_norm, "batch_norm_param"),
    "Scale": (lone, "scale_param"),
    "Pooling": (pooling, "pooling_param"),
    "InnerProduct": (inner_product, "inner_product_param"),
    "Eltwise": (eltwise, "eltwise_param"),
    "Concat": (concat, "concat_param"),
    "Dropout": (dropout, "dropout_param"),
    "Flatten": (flatten, ""),
    "Softmax": (softmax, "softmax_param"),
    "Input": (lone, "input_param"),
}
"""What makes a step of a layer of each type, and its own parameters' field."""
