"""Layers of a prototxt as stock Keras layers."""

from __future__ import annotations

import functools

from keras_diagwise.importers.caffe.caffemodel import Layers
from keras_diagwise.importers.graph import Graph, Kind, kind_of
from keras_diagwise.importers.options import COUNT, PADDING, PAIR, Option, Source, short
from keras_diagwise.importers.steps import Shape, Step

OF_NETWORK = {
    *("name", "input", "layer", "input_shape"),
    *("state", "debug_info", "force_backward"),
}
OF_LAYERS = {"name", "type", "bottom", "top", "param", "loss_weight", "propagate_down"}
HINTS = {"engine", "weight_filler", "bias_filler", "filler", "shape"}
"""Fields of a network, of layers and of their parameters that are read elsewhere or do
not change an output."""


class Network:
    """A prototxt as steps.

    Args:
        net: the file's message.

    Attributes:
        graph: the steps.
        layers: types and weights of the layers that have blobs, by name.

    Raises:
        ValueError: if a layer is not supported, or the image's size is unknown.
    """

    def __init__(self, net: Source):
        if "layers" in net.options or "layers" in net.messages:
            raise net.error("Caffe must upgrade a file that has `layers`", "layers")
        layers = net.messages.get("layer", [])
        names, shape = net.words("input"), net.message("input_shape")
        if has_input := bool(layers) and "Input" in layers[0].words("type"):
            names = layers[0].words("top")
            shape = layers[0].message("input_param").message("shape")
        self.graph = Graph(shape, image_of(net, shape))
        self.layers: Layers = {}
        self._steps: dict[str, int] = dict.fromkeys(names[:1], 0)
        self._unscaled: list[str] = []
        for number, layer in enumerate(layers[has_input:], has_input):
            self._add(layer, number)
        self.graph.end([len(self.graph.steps) - 1])

    def _add(self, layer: Source, number: int) -> None:
        """Adds the step of a layer."""
        name, kind_name = ("".join(layer.words(n)[-1:]) for n in ("name", "type"))
        layer.what = f"layer {short(name)}"
        field, kind = kind_of(TYPES, kind_name, layer)
        layer.read({}, ignored={*OF_LAYERS, field})
        options = joined(layer.message(field)).read(kind.options, HINTS)
        if kind_name == "Scale":
            step = self._normalized(layer)
            step.affine(options.bias_term)
        else:
            inputs = self._inputs(layer, kind)
            keras_name = f"{kind_name.lower()}_{number}"
            step = self.graph.add(kind, layer, keras_name, inputs, options)
        tops = layer.words("top")
        if len(tops) != 1:
            raise layer.error("it must have one top", tops)
        if weights := step.ordered(kind.weights):
            if name in self.layers:
                raise layer.error("two layers must not have one name", name)
            self.layers[name] = kind_name, weights
        self._steps[tops[0]] = len(self.graph.steps) - 1
        self._unscaled = tops if kind_name == "BatchNorm" else []

    def _inputs(self, layer: Source, kind: Kind) -> list[int]:
        """The steps that a layer reads."""
        bottoms = layer.words("bottom")
        most = len(bottoms) if kind.reads_all else 1
        if not 0 < len(bottoms) <= most or not self._steps.keys() >= set(bottoms):
            what = "tops of layers" if kind.reads_all else "the top of one layer"
            raise layer.error(f"`bottom` must name {what} above", bottoms)
        return [self._steps[each] for each in bottoms]

    def _normalized(self, scale: Source) -> Step:
        """The step of the BatchNorm right before a Scale, which alone may read it."""
        if not self._unscaled or scale.words("bottom") != self._unscaled:
            reason = "a Scale must stand behind a BatchNorm"
            raise scale.error(reason, scale.words("bottom"))
        return self.graph.steps[self._steps.pop(self._unscaled[0])]


def image_of(net: Source, shape: Source) -> Shape:
    """Height, width and channels of the image.

    Raises:
        ValueError: if the prototxt does not give them.
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
    """Parameters with height and width merged into one field of two values."""
    for name in ("kernel_size", "stride", "pad"):
        sides = [f"{name.removesuffix('_size')}_{side}" for side in "hw"]
        if name not in params.options and any(map(params.words, sides)):
            missing = params.where, ["0"]
            pair = [params.options.pop(side, missing) for side in sides]
            (where, height), (_, width) = pair
            params.options[name] = where, height + width
    return params


def batch_norm(step: Step) -> None:
    o = step.options
    step.batch_norm(o.eps, o.moving_average_fraction, scale=False, center=False)
    step.add_weight("factor", (1,), is_one=True)


def pooling(step: Step) -> None:
    o = step.options
    places = POOLS[o.pool], o.kernel_size, o.stride, o.pad
    is_ceil = o.round_mode == "CEIL"
    step.padded_pooling(*places, o.global_pooling, is_ceil, is_clipped=True)


def eltwise(step: Step) -> None:
    OPERATIONS[step.options.operation](step)


def lone(step: Step) -> None:
    raise step.error("a layer of the type Input must be the first", step.name)


POOLS = {"MAX": "max", "AVE": "avg", "0": "max", "1": "avg"}
OPERATIONS = {"SUM": Step.add, "PROD": Step.multiply, "1": Step.add, "0": Step.multiply}

OUTPUTS, BIAS = {"num_output": COUNT}, {"bias_term": Option(True)}
CONVOLUTION = {
    **OUTPUTS,
    "kernel_size": Option(0, least=1, values=2),
    **{"stride": PAIR, "pad": PADDING, "dilation": PAIR},
    "group": Option(1, least=1),
    **BIAS,
}
DEPTHWISE = {**CONVOLUTION, "group": Option(None, least=1)}
"""Depthwise layers of forks, whose groups default to the channels."""

POOLING = {
    **{"kernel_size": PAIR, "stride": PAIR, "pad": PADDING},
    "pool": Option("MAX", choices=POOLS),
    "round_mode": Option("CEIL", choices=("CEIL", "FLOOR")),
    "global_pooling": Option(False),
}
BATCH_NORM = {
    **{"eps": Option(1e-5, 0, 1), "use_global_stats": Option(True)},
    "moving_average_fraction": Option(0.999, 0, 1),
}
RELU = {"negative_slope": Option(0.0, 0, 1)}
RATE = {"dropout_ratio": Option(0.5, 0, 1)}
OPERATION = {"operation": Option("SUM", choices=OPERATIONS)}
SCALE = {"bias_term": Option(False)}
AXIS = {"axis": Option("1", choices=("1",))}
DIMENSIONS = Option(None, values=0)

KERNEL, AFFINE = ("kernel", "bias"), ("gamma", "beta")
STATISTICS = ("moving_mean", "moving_variance", "factor")

GROUPED = Kind(Step.convolution, CONVOLUTION, KERNEL, arguments=7)
SEPARATE = Kind(Step.convolution, DEPTHWISE, KERNEL, arguments=7)
DENSE = Kind(Step.dense, {**OUTPUTS, **BIAS, **AXIS}, KERNEL, arguments=2)
RELU6 = functools.partial(Step.relu, most=6)

TYPES = {
    "Convolution": ("convolution_param", GROUPED),
    "ConvolutionDepthwise": ("convolution_param", SEPARATE),
    "DepthwiseConvolution": ("convolution_param", SEPARATE),
    "BatchNorm": ("batch_norm_param", Kind(batch_norm, BATCH_NORM, STATISTICS)),
    "Scale": ("scale_param", Kind(Step.affine, SCALE, AFFINE)),
    "Pooling": ("pooling_param", Kind(pooling, POOLING)),
    "InnerProduct": ("inner_product_param", DENSE),
    "ReLU": ("relu_param", Kind(Step.relu, RELU, arguments=1)),
    "ReLU6": ("relu_param", Kind(RELU6, RELU, arguments=1)),
    "Sigmoid": ("", Kind(functools.partial(Step.activation, kind="sigmoid"))),
    "TanH": ("", Kind(functools.partial(Step.activation, kind="tanh"))),
    "Eltwise": ("eltwise_param", Kind(eltwise, OPERATION, reads_all=True)),
    "Concat": ("concat_param", Kind(Step.concatenate, AXIS, reads_all=True)),
    "Dropout": ("dropout_param", Kind(Step.dropout, RATE, arguments=1)),
    "Flatten": ("", Kind(Step.flatten)),
    "Softmax": ("softmax_param", Kind(Step.softmax, AXIS)),
    "Input": ("input_param", Kind(lone)),
}
"""Parameter field and kind of each layer type."""
