"""MXNet's classifiers: every op by its definition, and the way there and back."""

import keras
import numpy as np
import pytest

import keras_diagwise
from keras_diagwise.importers import mxnet
from tests.importers.mobile_nets import mobilenet, mobilenet_v2
from tests.importers.mxnet_nets import Writer

MAX_ERROR = 1e-5


def images(size=16, width=None, channels=3, batch=2):
    shape = (batch, channels, size, width or size)
    return np.random.default_rng(1).standard_normal(shape).astype("float32")


def difference(folder, net, *heads):
    """The largest between the model's outputs and the writer's."""
    paths = net.write(folder, *heads)
    batch = net.values[net.image]
    model = mxnet.load(*paths, image_size=batch.shape[2:])
    found = model.predict(batch.transpose(0, 2, 3, 1), verbose=0)
    last = heads or [max(net.values)]
    found = found if isinstance(found, list) else [found]
    assert len(found) == len(last)
    return max(
        np.abs(each - channels_last(net.values[head])).max()
        for each, head in zip(found, last, strict=True)
    )


def channels_last(values):
    if values.ndim == 2:
        return values
    values = values.transpose(0, 2, 3, 1)
    return values.reshape(len(values), -1) if values.shape[1:3] == (1, 1) else values


@pytest.mark.parametrize("make", [mobilenet, mobilenet_v2])
def test_mobile_networks(tmp_path, make):
    net = Writer(images(64))
    make(net)
    assert difference(tmp_path, net) <= MAX_ERROR
    paths = tmp_path / "net-symbol.json", tmp_path / "net-0000.params"
    model = mxnet.load(*paths, image_size=64)
    assert any(type(each) is keras.layers.DepthwiseConv2D for each in model.layers)
    mxnet.save(model, paths[0], tmp_path / "again.params")
    assert (tmp_path / "again.params").read_bytes() == paths[1].read_bytes()


CONVOLUTIONS = {
    "bias": {"bias": True},
    "stride": {"stride": 2},
    "depthwise, bias": {"groups": 6, "bias": True, "stride": 2},
    "groups": {"groups": 3},
    "dilation": {"dilate": 2, "pad": 2},
    "no padding": {"pad": 0},
}


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_ops(tmp_path, options):
    net = Writer(images(9, 12, channels=6))
    net.conv(net.image, 6, 3, **options)
    assert difference(tmp_path, net) <= MAX_ERROR


POOLINGS = {
    "max": ("max", 2, 2),
    "max, 3 by 2": ("max", 3, 2),
    "max, padding": ("max", 3, 2, 1),
    "max, full": ("max", 3, 2, 0, True),
    "max, full, padding": ("max", 4, 2, 1, True),
    "avg": ("avg", 2, 2),
    "avg, padding": ("avg", 3, 1, 1),
    "avg of all": ("avg", 9, 1),
}


@pytest.mark.parametrize("options", POOLINGS.values(), ids=POOLINGS)
def test_pooling(tmp_path, options):
    net = Writer(images(9))
    net.pool(net.norm(net.image), *options)
    assert difference(tmp_path, net) <= MAX_ERROR


def test_other_ops(tmp_path):
    """Squeeze and excitation, concatenation, and what leaves a tensor as it is."""
    net = Writer(images(8))
    x = net.relu(net.norm(net.conv(net.image, 8, 3), fix_gamma=True))
    x = net.multiply(x, net.sigmoid(net.conv(net.mean(x), 8, 1, bias=True)))
    x = net.op("BlockGrad", [x], net.values[x])
    y = net.conv(x, 5, 3)
    x = net.concat(x, net.op("Dropout", [y], net.values[y], p=0.3))
    tanh = net.op("Activation", [x], np.tanh(net.values[x]), act_type="tanh")
    net.softmax_output(net.dense(net.multiply(x, tanh), 4))
    assert difference(tmp_path, net) <= MAX_ERROR


def test_several_outputs(tmp_path):
    net = Writer(images(8))
    first = net.conv(net.image, 4, 3)
    second = net.flatten(net.mean(first))
    assert difference(tmp_path, net, second, first) <= MAX_ERROR


@pytest.mark.parametrize("attributes", ["attr", "param"])
def test_symbols_of_older_versions(tmp_path, attributes):
    net = Writer(images(8), attributes=attributes)
    net.dense(net.relu(net.conv(net.image, 4, 3, stride=2)), 3)
    assert difference(tmp_path, net) <= MAX_ERROR


def test_trained_model_goes_back(tmp_path):
    """Converted, by way of a `.keras` file; what is always 1 is written as that."""
    net = Writer(images(8))
    x = net.norm(net.conv(net.image, 6, 3), fix_gamma=True)
    x = net.relu(net.conv(x, 6, 3, groups=6))
    net.softmax_output(net.dense(net.flatten(net.mean(x)), 4))
    paths = net.write(tmp_path)
    model = keras_diagwise.convert(mxnet.load(*paths, image_size=8), verbose=0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    batch = net.values[net.image].transpose(0, 2, 3, 1)
    model.fit(batch, np.arange(2), epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    mxnet.save(model, paths[0], tmp_path / "trained.params")
    again = mxnet.load(paths[0], tmp_path / "trained.params", image_size=8)
    expected = model.predict(batch, verbose=0)
    np.testing.assert_allclose(again.predict(batch, verbose=0), expected, atol=1e-6)
    content = (tmp_path / "trained.params").read_bytes()
    assert np.ones(6, "<f4").tobytes() in content
    assert len(content) == len(net.params())


def test_model_of_another_symbol(tmp_path):
    net = Writer(images(32))
    mobilenet(net)
    paths = net.write(tmp_path)
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match=r"node 2, Convolution conv1: `model` must"):
        mxnet.save(model, *paths)
