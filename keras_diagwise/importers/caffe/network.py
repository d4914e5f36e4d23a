"""What the layers of a prototxt compute, in stock Keras layers."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras

from keras_diagwise.importers import layers
from keras_diagwise.importers.caffe.caffemodel import Blob
from keras_diagwise.importers.caffe.prototxt import Message
from keras_diagwise.importers.graph import Graph, Shape, Step, short
from keras_diagwise.importers.weights import MATRIX, VECTOR, Weight

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
        self._names: set[tuple[str, int]] = set()
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

    def bottoms(self, layer: Layer, least: int = 1) -> tuple[list[int], list[Shape]]:
        """The steps that a layer reads, and their shapes."""
        unknown = [each for each in layer.bottoms if each not in self._steps]
        count = len(layer.bottoms)
        if unknown or count < least or (least == 1 and count > 1):
            what = "the top of one layer" if least == 1 else "tops of several layers"
            raise layer.error(f"`bottom` must name {what} above", layer.bottoms)
        sources = [self._steps[each] for each in layer.bottoms]
        return sources, [self.graph.steps[source].shape for source in sources]

    def weight(
        self, layer: Layer, number: int, *weight, keras_name: str = ""
    ) -> Weight:
        """A weight that is a blob of a layer.

        Args:
            layer: the layer.
            number: of the blob.
            *weight: variable, shape and axes of a `Weight`.
            keras_name: of the layer in Keras, if it is another's.
        """
        name = keras_name or layer.keras_name
        made = Weight(f"{weight[0]} of {layer.place}", name, *weight)
        self._add_blob(layer, number, made.shape, made)
        return made

    def factor(self, layer: Layer, number: int) -> None:
        """The blob of a layer by which its others are divided."""
        self._add_blob(layer, number, (1,), None)

    def _add_blob(self, layer, number, shape, weight) -> None:
        if (layer.name, number) in self._names:
            raise layer.error("two layers must not have one name", layer.name)
        self._names.add((layer.name, number))
        blob = Blob(layer.place, layer.name, layer.type, number, shape, weight)
        self.blobs.append(blob)


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
    sources, (image,) = net.bottoms(layer)
    params, name = layer.params, layer.keras_name
    size, strides = params.pair("kernel_size", 0, 1), params.pair("stride", 1, 1)
    padding, dilation = params.pair("pad", 0, 0), params.pair("dilation", 1, 1)
    filters = params.number("num_output", 0, 1)
    groups = params.number("group", image[2] if layer.type in DEPTHWISE else 1, 1)
    has_bias = params.flag("bias_term", True)
    if image[2] % groups or filters % groups:
        raise layer.error(f"`group` must divide {image[2]} and {filters}", groups)
    if max(dilation) > 1 and max(strides) > 1:
        raise layer.error("`dilation` takes a `stride` of 1", strides)
    axes = layers.kernel_axes(image[2], filters, groups, strides)
    shape = (filters, image[2] // groups, *size)
    weights = [net.weight(layer, 0, "kernel", shape, axes)]
    if has_bias:
        weights.append(net.weight(layer, 1, "bias", (filters,), VECTOR))

    def build(x):
        pairs = size, strides, padding, dilation
        return layers.convolution(x, name, filters, *pairs, groups, has_bias)

    both = 2 * padding[0], 2 * padding[1]
    outputs = layers.windows(image, size, strides, both, dilation)
    return Step(layer.place, (*outputs, filters), build, sources, weights)


def batch_norm(layer: Layer, net: Network, scale: Layer | None = None) -> Step:
    """Batch normalization, with the Scale behind it if there is one."""
    sources, (image,) = net.bottoms(layer)
    epsilon = layer.params.number("eps", 1e-5, 0, 1, float)
    momentum = layer.params.number("moving_average_fraction", 0.999, 0, 1, float)
    layer.params.flag("use_global_stats", True)
    name, size = layer.keras_name, image[2:]
    weights = [
        net.weight(layer, number, each, size, VECTOR)
        for number, each in enumerate(("moving_mean", "moving_variance"))
    ]
    net.factor(layer, 2)
    has_bias = scale is not None and scale.params.flag("bias_term", False)
    if scale is not None:
        scale.check_fields()
        names = ("gamma", "beta") if has_bias else ("gamma",)
        weights += [
            net.weight(scale, number, each, size, VECTOR, keras_name=name)
            for number, each in enumerate(names)
        ]

    def build(x):
        settings = {"scale": scale is not None, "center": has_bias}
        return layers.batch_norm(x, name, epsilon, momentum, **settings)

    return Step(layer.place, image, build, sources, weights)


def inner_product(layer: Layer, net: Network) -> Step:
    sources, (image,) = net.bottoms(layer)
    units = layer.params.number("num_output", 0, 1)
    has_bias = layer.params.flag("bias_term", True)
    layer.params.text("axis", "1", ("1",))
    shape = (units, math.prod(image))
    weights = [net.weight(layer, 0, "kernel", shape, MATRIX)]
    if has_bias:
        weights.append(net.weight(layer, 1, "bias", (units,), VECTOR))

    def build(x):
        return layers.dense(x, layer.keras_name, units, has_bias)

    return Step(layer.place, (1, 1, units), build, sources, weights)


def pooling(layer: Layer, net: Network) -> Step:
    sources, (image,) = net.bottoms(layer)
    params = layer.params
    kind = params.text("pool", "MAX", ("MAX", "AVE", "0", "1"))
    is_ceil = params.text("round_mode", "CEIL", ("CEIL", "FLOOR")) == "CEIL"
    size = params.pair("kernel_size", 1, 1)
    strides, padding = params.pair("stride", 1, 1), params.pair("pad", 0, 0)
    if params.flag("global_pooling", False):
        size = image[:2]
    both = 2 * padding[0], 2 * padding[1]
    outputs = layers.windows(image, size, strides, both, is_ceil=is_ceil)
    if any(padding):  # Caffe drops a window that begins behind the image
        rows, columns = (
            count - ((count - 1) * stride >= pixels + pad)
            for count, stride, pixels, pad in zip(
                outputs, strides, image[:2], padding, strict=True
            )
        )
        outputs = rows, columns
    kind = "max" if kind in ("MAX", "0") else "avg"
    pool = layers.Pooling(kind, size, strides, padding, outputs)
    if not pool.can_build(image):
        raise layer.error(f"an image of {image} can't be pooled so", pool)

    def build(x):
        return pool.build(x, layer.keras_name)

    return Step(layer.place, (*outputs, image[2]), build, sources)


def elementwise(layer: Layer, net: Network, build: Callable) -> Step:
    sources, (image,) = net.bottoms(layer)
    return Step(layer.place, image, build, sources)


def relu(layer: Layer, net: Network) -> Step:
    slope = layer.params.number("negative_slope", 0, 0, 1, float)
    settings = {"negative_slope": slope, "name": layer.keras_name}
    most = 6 if layer.type == "ReLU6" else None
    make = keras.layers.ReLU
    return elementwise(layer, net, lambda x: make(max_value=most, **settings)(x))


def activation(layer: Layer, net: Network) -> Step:
    kind = {"Sigmoid": "sigmoid", "TanH": "tanh"}[layer.type]
    name = layer.keras_name
    return elementwise(layer, net, lambda x: layers.activation(x, name, kind))


def dropout(layer: Layer, net: Network) -> Step:
    rate = layer.params.number("dropout_ratio", 0.5, 0, 1, float)
    name = layer.keras_name
    return elementwise(layer, net, lambda x: layers.dropout(x, name, rate))


def flatten(layer: Layer, net: Network) -> Step:
    name = layer.keras_name
    step = elementwise(layer, net, lambda x: layers.one_pixel(x, name))
    return step._replace(shape=(1, 1, math.prod(step.shape)))


def softmax(layer: Layer, net: Network) -> Step:
    layer.params.text("axis", "1", ("1",))
    name = layer.keras_name
    step = elementwise(layer, net, lambda x: layers.softmax(x, name))
    if step.shape[:2] != (1, 1):
        raise layer.error("its bottom must be of one pixel", step.shape)
    return step


def eltwise(layer: Layer, net: Network) -> Step:
    sources, shapes = net.bottoms(layer, 2)
    kind = layer.params.text("operation", "SUM", ("SUM", "PROD", "0", "1"))
    if len(set(shapes)) > 1:
        raise layer.error("its bottoms must have one shape", shapes)
    merge = layers.add if kind in ("SUM", "1") else layers.multiply

    def build(*tensors):
        return merge(list(tensors), layer.keras_name)

    return Step(layer.place, shapes[0], build, sources)


def concat(layer: Layer, net: Network) -> Step:
    sources, shapes = net.bottoms(layer, 2)
    layer.params.text("axis", "1", ("1",))
    if len({shape[:2] for shape in shapes}) > 1:
        raise layer.error("its bottoms must be of one size", shapes)

    def build(*tensors):
        return layers.concatenate(list(tensors), layer.keras_name)

    shape = (*shapes[0][:2], sum(each[2] for each in shapes))
    return Step(layer.place, shape, build, sources)


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
