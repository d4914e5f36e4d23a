"""Prototxts and caffemodels, written here, with what they compute in numpy."""

import numpy as np

from tests.importers import reference

CEIL, FLOOR = "CEIL", "FLOOR"


def varint(number):
    parts = []
    while number >= 128:
        parts.append(number % 128 + 128)
        number //= 128
    return bytes([*parts, number])


def field(number, content):
    """A field of bytes, or of an integer."""
    if isinstance(content, int):
        return varint(8 * number) + varint(content)
    return varint(8 * number + 2) + varint(len(content)) + content


def blob(values, old=False):
    """By a shape, or as old files have it: four sizes, ones before the rest."""
    if old:
        sizes = [*[1] * (4 - values.ndim), *values.shape]
        head = b"".join(field(1 + i, size) for i, size in enumerate(sizes))
    else:
        head = field(7, field(1, b"".join(map(varint, values.shape))))
    return head + field(5, values.astype("<f4").tobytes())


class Writer:
    """A network that grows by layers; each method takes tops and returns one.

    Attributes:
        values: of each top, in float64, channels first.
    """

    def __init__(self, images, seed=0, old=False, in_place=True, depthwise=None):
        self.images = np.asarray(images, "float64")
        self.values = {"data": self.images}
        self.image = self.last = "data"
        self.blobs = {}
        sizes = " ".join(f"dim: {size}" for size in np.shape(images))
        self._text = [f'input: "data"  # the image\ninput_shape {{ {sizes} }}']
        self._old, self._in_place, self._depthwise = old, in_place, depthwise
        self._draw = np.random.default_rng(seed)
        self._count = 0

    def _layer(self, kind, bottoms, values, params="", blobs=(), in_place=False):
        name = f"{kind.lower()}{self._count}"
        self._count += 1
        top = bottoms[0] if in_place and self._in_place else name
        reads = " ".join(f'bottom: "{each}"' for each in bottoms)
        self._text.append(
            f'layer {{\n  name: "{name}"\n  type: "{kind}"\n  {reads}\n'
            f'  top: "{top}"\n  {params}\n}}'
        )
        if blobs:
            self.blobs[name] = [np.asarray(each, "<f4") for each in blobs]
        self.values[top] = values
        self.last = top
        return top

    def _noise(self, *shape):
        return self._draw.standard_normal(shape).astype("<f4").astype("float64")

    def conv(
        self, x, filters, size, stride=1, pad=None, groups=1, bias=False, dilate=1
    ):
        image = self.values[x]
        pad = size // 2 if pad is None else pad
        kernel = self._noise(filters, image.shape[1] // groups, size, size)
        kernel = (kernel / np.sqrt(kernel[0].size)).astype("<f4").astype("float64")
        pairs = 2 * [stride], 2 * [pad], 2 * [dilate]
        values = reference.convolution(image, kernel, *pairs, groups)
        blobs = [kernel]
        if bias:
            blobs.append(self._noise(filters))
            values = values + blobs[1].reshape(1, -1, 1, 1)
        kind, group = "Convolution", f"group: {groups}"
        if self._depthwise and groups == filters > 1:
            kind, group = self._depthwise, ""
        params = (
            f"convolution_param {{ num_output: {filters} kernel_size: {size} "
            f"stride: {stride} pad: {pad} dilation: {dilate} {group} "
            f"bias_term: {str(bias).lower()} weight_filler {{ type: 'msra' }} }}"
        )
        return self._layer(kind, [x], values, params, blobs)

    def norm(self, x, factor=8.0, bias=True):
        """A BatchNorm and the Scale behind it."""
        image = self.values[x]
        count = image.shape[1]
        mean = 0.125 * self._noise(count)
        variance = (0.5 + self._draw.random(count)).astype("<f4").astype("float64")
        gamma, beta = self._noise(count), 0.1 * self._noise(count) * bias
        beta = beta.astype("<f4").astype("float64")
        params = "batch_norm_param { use_global_stats: true eps: 0.001 }"
        blobs = [mean * factor, variance * factor, [factor]]
        plain = np.ones(count), np.zeros(count), mean, variance, 1e-3
        values = reference.normalization(image, *plain)
        x = self._layer("BatchNorm", [x], values, params, blobs, in_place=True)
        values = reference.normalization(image, gamma, beta, mean, variance, 1e-3)
        params = f"scale_param {{ bias_term: {str(bias).lower()} }}"
        blobs = [gamma, beta] if bias else [gamma]
        return self._layer("Scale", [x], values, params, blobs, in_place=True)

    def relu(self, x):
        return self._layer("ReLU", [x], np.maximum(self.values[x], 0), in_place=True)

    def relu6(self, x):
        return self._layer("ReLU6", [x], np.clip(self.values[x], 0, 6), in_place=True)

    def leaky(self, x, slope):
        image = self.values[x]
        values = np.where(image > 0, image, slope * image)
        params = f"relu_param {{ negative_slope: {slope} }}"
        return self._layer("ReLU", [x], values, params)

    def sigmoid(self, x):
        return self._layer("Sigmoid", [x], 1 / (1 + np.exp(-self.values[x])))

    def tanh(self, x):
        return self._layer("TanH", [x], np.tanh(self.values[x]))

    def add(self, *inputs):
        return self._layer("Eltwise", inputs, sum(self.values[x] for x in inputs))

    def multiply(self, *inputs):
        values = np.prod([self.values[x] for x in inputs], axis=0)
        return self._layer(
            "Eltwise", inputs, values, "eltwise_param { operation: PROD }"
        )

    def concat(self, *inputs):
        values = np.concatenate([self.values[x] for x in inputs], 1)
        return self._layer("Concat", inputs, values)

    def pool(self, x, kind, size, stride, pad=0, rounding=CEIL):
        image = self.values[x]
        outputs = []
        for pixels in image.shape[2:]:
            rest = pixels + 2 * pad - size
            count = (-(-rest // stride) if rounding == CEIL else rest // stride) + 1
            outputs.append(count - (pad > 0 and (count - 1) * stride >= pixels + pad))
        name = {"MAX": "max", "AVE": "avg"}[kind]
        pairs = 2 * [size], 2 * [stride], 2 * [pad]
        values = reference.pooling(image, *pairs, outputs, name, pad)
        params = (
            f"pooling_param {{ pool: {kind} kernel_h: {size} kernel_w: {size} "
            f"stride: {stride} pad: {pad} round_mode: {rounding} }}"
        )
        return self._layer("Pooling", [x], values, params)

    def mean(self, x):
        values = self.values[x].mean((2, 3), keepdims=True)
        params = "pooling_param { pool: AVE global_pooling: true }"
        return self._layer("Pooling", [x], values, params)

    def dropout(self, x):
        return self._layer("Dropout", [x], self.values[x], in_place=True)

    def flatten(self, x):
        values = self.values[x].reshape(len(self.values[x]), -1)
        return self._layer("Flatten", [x], values)

    def dense(self, x, units):
        flat = self.values[x].reshape(len(self.values[x]), -1)
        kernel = self._noise(units, flat.shape[1]) / np.sqrt(flat.shape[1])
        kernel = kernel.astype("<f4").astype("float64")
        bias = self._noise(units)
        params = f"inner_product_param {{ num_output: {units} }}"
        values = flat @ kernel.T + bias
        return self._layer("InnerProduct", [x], values, params, [kernel, bias])

    def softmax(self, x):
        return self._layer("Softmax", [x], reference.softmax(self.values[x]))

    def prototxt(self):
        return "\n".join([*self._text, ""])

    def caffemodel(self):
        """The file, of layers as Caffe has them now, or as it had them first."""
        parts = [field(1, b"a network")]
        layer, name, number = (2, 4, 6) if self._old else (100, 1, 7)
        for each, values in self.blobs.items():
            blobs = b"".join(field(number, blob(v, self._old)) for v in values)
            parts.append(field(layer, field(name, each.encode()) + blobs))
        return b"".join(parts)

    def write(self, folder):
        """Writes both files and returns their paths."""
        paths = folder / "net.prototxt", folder / "net.caffemodel"
        paths[0].write_text(self.prototxt())
        paths[1].write_bytes(self.caffemodel())
        return paths
