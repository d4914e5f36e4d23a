"""Symbols and parameters of MXNet, written here, with what they compute in numpy."""

import json
import struct

import numpy as np

from tests.importers import reference


class Writer:
    """A network that grows by nodes; each method takes nodes and returns one.

    Attributes:
        values: of each node, in float64, channels first.
    """

    def __init__(self, images, seed=0, attributes="attrs"):
        self.values = {}
        self.parameters = {}
        self._nodes = []
        self._attributes = attributes
        self._draw = np.random.default_rng(seed)
        self.image = self.variable("data")
        self.values[self.image] = np.asarray(images, "float64")

    def variable(self, name):
        return self._node("null", name, [])

    def parameter(self, name, *shape, kind="arg"):
        noise = self._draw.standard_normal(shape)
        if name.endswith("var"):
            noise = 0.5 + self._draw.random(shape)
        elif name.endswith("gamma"):
            noise = 1 + 0.1 * noise
        elif len(shape) == 1:
            noise = 0.1 * noise
        else:
            noise = noise / np.sqrt(np.prod(shape[1:]))
        values = noise.astype("<f4")
        self.parameters[f"{kind}:{name}"] = values
        return self.variable(name), values.astype("float64")

    def _node(self, op, name, inputs, **attributes):
        node = {"op": op, "name": name, "inputs": [[i, 0, 0] for i in inputs]}
        if attributes:
            node[self._attributes] = {
                key: str(each) for key, each in attributes.items()
            }
        self._nodes.append(node)
        return len(self._nodes) - 1

    def op(self, op, inputs, values, **attributes):
        """A node without parameters, and what it computes."""
        node = self._node(op, f"{op.lower()}{len(self._nodes)}", inputs, **attributes)
        self.values[node] = values
        return node

    def conv(
        self, x, filters, size, stride=1, pad=None, groups=1, bias=False, dilate=1
    ):
        name = f"conv{len(self._nodes)}"
        image = self.values[x]
        pad = size // 2 if pad is None else pad
        shape = (filters, image.shape[1] // groups, size, size)
        kernel, values = self.parameter(f"{name}_weight", *shape)
        inputs = [x, kernel]
        pairs = 2 * [stride], 2 * [pad], 2 * [dilate]
        result = reference.convolution(image, values, *pairs, groups)
        if bias:
            node, biases = self.parameter(f"{name}_bias", filters)
            inputs.append(node)
            result += biases.reshape(1, -1, 1, 1)
        made = self._node(
            "Convolution",
            name,
            inputs,
            kernel=(size, size),
            stride=(stride, stride),
            pad=(pad, pad),
            dilate=(dilate, dilate),
            num_filter=filters,
            num_group=groups,
            no_bias=not bias,
            workspace=1024,
        )
        self.values[made] = result
        return made

    def norm(self, x, fix_gamma=False):
        name = f"batchnorm{len(self._nodes)}"
        count = self.values[x].shape[1]
        parts = [("gamma", "arg"), ("beta", "arg"), ("mean", "aux"), ("var", "aux")]
        found = [self.parameter(f"{name}_{n}", count, kind=kind) for n, kind in parts]
        nodes, values = zip(*found, strict=True)
        if fix_gamma:
            values = (np.ones(count), *values[1:])
        inputs = [x, *nodes]
        made = self._node("BatchNorm", name, inputs, eps=1e-5, fix_gamma=fix_gamma)
        self.values[made] = reference.normalization(self.values[x], *values, 1e-5)
        return made

    def relu(self, x):
        values = np.maximum(self.values[x], 0)
        return self.op("Activation", [x], values, act_type="relu")

    def relu6(self, x):
        return self.op("clip", [x], np.clip(self.values[x], 0, 6), a_min=0, a_max=6)

    def sigmoid(self, x):
        values = 1 / (1 + np.exp(-self.values[x]))
        return self.op("Activation", [x], values, act_type="sigmoid")

    def add(self, *inputs):
        return self.op("elemwise_add", inputs, sum(self.values[x] for x in inputs))

    def multiply(self, first, second):
        values = self.values[first] * self.values[second]
        return self.op("broadcast_mul", [first, second], values)

    def concat(self, *inputs):
        values = np.concatenate([self.values[x] for x in inputs], 1)
        return self.op("Concat", inputs, values, dim=1)

    def pool(self, x, kind, size, stride, pad=0, full=False):
        image = self.values[x]
        rests = [pixels + 2 * pad - size for pixels in image.shape[2:]]
        outputs = [
            (-(-each // stride) if full else each // stride) + 1 for each in rests
        ]
        pairs = 2 * [size], 2 * [stride], 2 * [pad]
        values = reference.pooling(image, *pairs, outputs, kind, pad)
        return self.op(
            "Pooling",
            [x],
            values,
            kernel=(size, size),
            stride=(stride, stride),
            pad=(pad, pad),
            pool_type=kind,
            pooling_convention="full" if full else "valid",
        )

    def mean(self, x):
        values = self.values[x].mean((2, 3), keepdims=True)
        return self.op(
            "Pooling", [x], values, kernel=(7, 7), global_pool=True, pool_type="avg"
        )

    def flatten(self, x):
        return self.op("Flatten", [x], self.values[x].reshape(len(self.values[x]), -1))

    def dense(self, x, units):
        name = f"dense{len(self._nodes)}"
        flat = self.values[x].reshape(len(self.values[x]), -1)
        kernel, weight = self.parameter(f"{name}_weight", units, flat.shape[1])
        bias, biases = self.parameter(f"{name}_bias", units)
        made = self._node("FullyConnected", name, [x, kernel, bias], num_hidden=units)
        self.values[made] = flat @ weight.T + biases
        return made

    def softmax_output(self, x):
        label = self.variable("softmax_label")
        return self.op("SoftmaxOutput", [x, label], reference.softmax(self.values[x]))

    def symbol(self, *heads):
        heads = heads or [len(self._nodes) - 1]
        return json.dumps({"nodes": self._nodes, "heads": [[i, 0, 0] for i in heads]})

    def params(self):
        """The file, by MXNet's layout of versions 1.0 to 1.9."""
        parts = [struct.pack("<3Q", 0x112, 0, len(self.parameters))]
        for values in self.parameters.values():
            shape = values.shape
            parts.append(struct.pack("<Iii", 0xF993FAC9, 0, len(shape)))
            parts.append(struct.pack(f"<{len(shape)}q3i", *shape, 1, 0, 0))
            parts.append(values.tobytes())
        parts.append(struct.pack("<Q", len(self.parameters)))
        for name in self.parameters:
            parts += [struct.pack("<Q", len(name)), name.encode()]
        return b"".join(parts)

    def write(self, folder, *heads):
        """Writes both files and returns their paths."""
        paths = folder / "net-symbol.json", folder / "net-0000.params"
        paths[0].write_text(self.symbol(*heads))
        paths[1].write_bytes(self.params())
        return paths
