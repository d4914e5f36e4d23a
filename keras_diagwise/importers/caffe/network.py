"""What the layers of a prototxt compute, in stock Keras layers."""

from __future__ import annotations

import functools

import keras

from keras_diagwise.importers.caffe.caffemodel import Layers
from keras_diagwise.importers.caffe.prototxt import message
from keras_diagwise.importers.graph import Graph, Kind
from keras_diagwise.importers.options import Option, Source, short
from keras_diagwise.importers.steps import Shape, Step, twice, windows

OF_NETWORK = {
    *("name", "input", "layer", "input_shape"),
    *("state", "debug_info", "force_backward"),
}
OF_LAYERS = {
    *("name", "type", "bottom", "top", "param", "blobs_lr", "weight_decay"),
    *("loss_weight", "propagate_down"),
}
HINTS = {"engine", "weight_filler", "bias_filler", "filler", "shape"}
"""Fields of a network, of layers and of their parameters, that are read elsewhere or
change no output."""


class Network:
    """A prototxt as steps.

    Args:
        net: the file's message.

    Attributes:
        graph: the steps.
        layers: the types and weights of those that have blobs, by name.

    Raises:
        ValueError: if a layer is not supported, or the image's size not known.
    """

    def __init__(self, net: Source):
        if "layers" in net.options or "layers" in net.messages:
            raise net.error("Caffe must upgrade a file that has `layers`", "layers")
        layers = net.messages.get("layer", [])
        has_input = bool(layers) and "Input" in layers[0].words("type")
        first = message(layers[0], "input_param") if has_input else net
        shape = message(first, "shape" if has_input else "input_shape")
        names = layers[0].words("top") if has_input else net.words("input")
        self.graph = Graph(shape, image_of(net, shape))
        self.layers: Layers = {}
        self._steps: dict[str, int] = dict.fromkeys(names[:1], 0)
        self._unscaled: list[str] = []
        for number, layer in enumerate(layers):
            if number or not has_input:
                self._add(layer, number)
        self.graph.end([len(self.graph.steps) - 1])

    def _add(self, layer: Source, number: int) -> None:
        """Adds the step of a layer."""
        name, kind_name = ("".join(layer.words(n)[-1:]) for n in ("name", "type"))
        layer.what = f"layer {short(name)}"
        if kind_name not in TYPES:
            reason = f"its type must be one of {', '.join(TYPES)}"
            raise layer.error(reason, kind_name)
        field, kind = TYPES[kind_name]
        layer.read({}, ignored={*OF_LAYERS, field})
        options = joined(message(layer, field)).read(kind.options, HINTS)
        if kind_name == "Scale":
            step = self._normalized(layer)
            scale(step, options.bias_term)
        else:
            inputs = self._inputs(layer, kind)
            keras_name = f"{kind_name.lower()}_{number}"
            step = self.graph.add(kind, layer, keras_name, inputs, options)
        weights, tops = step.ordered(kind.weights), layer.words("top")
        if len(tops) != 1:
            raise layer.error("it must have one top", tops)
        if weights and name in self.layers:
            raise layer.error("two layers must not have one name", name)
        if weights:
            self.layers[name] = kind_name, weights
        self._steps[tops[0]] = len(self.graph.steps) - 1
        self._unscaled = tops if kind_name == "BatchNorm" else []

    def _inputs(self, layer: Source, kind: Kind) -> list[int]:
        """The steps that a layer reads."""
        bottoms = layer.words("bottom")
        found = [self._steps[each] for each in bottoms if each in self._steps]
        most = len(bottoms) if kind.reads_all else 1
        if not bottoms or len(found) < len(bottoms) or len(bottoms) > most:
            what = "tops of layers" if kind.reads_all else "the top of one layer"
            raise layer.error(f"`bottom` must name {what} above", bottoms)
        return found

    def _normalized(self, scale: Source) -> Step:
        """The step of the BatchNorm right before a Scale; others can't read it."""
        if not self._unscaled or scale.words("bottom") != self._unscaled:
            reason = "a Scale must stand behind a BatchNorm"
            raise scale.error(reason, scale.words("bottom"))
        return self.graph.steps[self._steps.pop(self._unscaled[0])]


def image_of(net: Source, shape: Source) -> Shape:
    """Height, width and channels of the image.

    Raises:
        ValueError: if they are not known.
    """
    sizes = net.read({"input_dim": DIMENSIONS}, OF_NETWORK).input_dim
    sizes = sizes or shape.read({"dim": DIMENSIONS}, ()).dim
    if len(sizes) != 4:
        raise shape.error(
            "the input must have the sizes of batch, channels, height and width, by "
            "`input_shape`, `input_dim` or a layer of the type Input",
            sizes,
        )
    _, channels, height, width = sizes
    return height, width, channels


def joined(params: Source) -> Source:
    """Parameters with height and width as two values of one field."""
    for name in ("kernel_size", "stride", "pad"):
        stem = name.removesuffix("_size")
        height, width = params.words(f"{stem}_h"), params.words(f"{stem}_w")
        if (height or width) and name not in params.options:
            where, _ = params.options.pop(f"{stem}_h", (params.where, []))
            params.options.pop(f"{stem}_w", None)
            params.options[name] = where, [*(height or "0"), *(width or "0")]
    return params


def convolution(step: Step, is_depthwise: bool = False) -> None:
    """Of forks there are depthwise ones, whose groups are the channels if not given."""
    o = step.options
    places = o.kernel_size, o.stride, o.pad, o.dilation
    groups = o.group or (step.shape[2] if is_depthwise else 1)
    step.convolution(o.num_output, *places, groups, o.bias_term)


def batch_norm(step: Step) -> None:
    o = step.options
    step.batch_norm(o.eps, o.moving_average_fraction, scale=False, center=False)
    step.add_weight("factor", (1,), is_one=True)


def scale(step: Step, use_bias: bool) -> None:
    """Gives a batch normalization what the Scale behind it has."""
    step.change(scale=True, center=use_bias)
    for variable in ("gamma", "beta")[: 1 + use_bias]:
        step.add_weight(variable, step.shape[2:])


def inner_product(step: Step) -> None:
    step.dense(step.options.num_output, step.options.bias_term)


def pooling(step: Step) -> None:
    o, image = step.options, step.shape[:2]
    size = image if o.global_pooling else o.kernel_size
    strides, padding = o.stride, o.pad
    is_ceil = o.round_mode == "CEIL"
    count = windows(image, size, strides, twice(padding), is_ceil=is_ceil)
    if any(padding):  # Caffe drops a window that begins behind the image
        places = zip(count, strides, image, padding, strict=True)
        rows, columns = (n - ((n - 1) * s >= i + p) for n, s, i, p in places)
        count = rows, columns
    kind = "max" if o.pool in ("MAX", "0") else "avg"
    step.pooling(kind, size, strides, padding, count)


def relu(step: Step, most: int | None = None) -> None:
    slope = step.options.negative_slope
    step.append(keras.layers.ReLU, max_value=most, negative_slope=slope)


def dropout(step: Step) -> None:
    step.append(keras.layers.Dropout, rate=step.options.dropout_ratio)


def eltwise(step: Step) -> None:
    if step.options.operation in ("SUM", "1"):
        step.add()
    else:
        step.multiply()


def lone(step: Step) -> None:
    raise step.error("a layer of the type Input must be the first", step.name)


UNITS = {"num_output": Option(0, least=1), "bias_term": Option(True)}
ONE = Option(1, least=1, values=2)
WINDOW = {"kernel_size": ONE, "stride": ONE, "pad": Option(0, values=2)}
CONVOLUTION = {
    **WINDOW,
    **UNITS,
    "kernel_size": Option(0, least=1, values=2),
    "dilation": ONE,
    "group": Option(None, least=1),
}
POOLING = {
    **WINDOW,
    "pool": Option("MAX", choices=("MAX", "AVE", "0", "1")),
    "round_mode": Option("CEIL", choices=("CEIL", "FLOOR")),
    "global_pooling": Option(False),
}
BATCH_NORM = {
    "eps": Option(1e-5, 0, 1),
    "moving_average_fraction": Option(0.999, 0, 1),
    "use_global_stats": Option(True),
}
RELU = {"negative_slope": Option(0.0, 0, 1)}
RATE = {"dropout_ratio": Option(0.5, 0, 1)}
OPERATION = {"operation": Option("SUM", choices=("SUM", "PROD", "0", "1"))}
BIAS = {"bias_term": Option(False)}
AXIS = {"axis": Option("1", choices=("1",))}
DIMENSIONS = Option(None, values=0)

KERNEL = ("kernel", "bias")
STATISTICS = ("moving_mean", "moving_variance", "factor")
DEPTHWISE = Kind(functools.partial(convolution, is_depthwise=True), CONVOLUTION, KERNEL)

TYPES = {
    "Convolution": ("convolution_param", Kind(convolution, CONVOLUTION, KERNEL)),
    "ConvolutionDepthwise": ("convolution_param", DEPTHWISE),
    "DepthwiseConvolution": ("convolution_param", DEPTHWISE),
    "BatchNorm": ("batch_norm_param", Kind(batch_norm, BATCH_NORM, STATISTICS)),
    "Scale": ("scale_param", Kind(scale, BIAS, ("gamma", "beta"))),
    "Pooling": ("pooling_param", Kind(pooling, POOLING)),
    "InnerProduct": ("inner_product_param", Kind(inner_product, UNITS | AXIS, KERNEL)),
    "ReLU": ("relu_param", Kind(relu, RELU)),
    "ReLU6": ("relu_param", Kind(functools.partial(relu, most=6), RELU)),
    "Sigmoid": ("", Kind(functools.partial(Step.activation, kind="sigmoid"))),
    "TanH": ("", Kind(functools.partial(Step.activation, kind="tanh"))),
    "Eltwise": ("eltwise_param", Kind(eltwise, OPERATION, reads_all=True)),
    "Concat": ("concat_param", Kind(Step.concatenate, AXIS, reads_all=True)),
    "Dropout": ("dropout_param", Kind(dropout, RATE)),
    "Flatten": ("", Kind(Step.flatten)),
    "Softmax": ("softmax_param", Kind(Step.softmax, AXIS)),
    "Input": ("input_param", Kind(lone)),
}
"""The field of each type's own parameters, and what it computes."""
