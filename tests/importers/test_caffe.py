"""Caffe's classifiers: every layer by its definition, and the way there and back."""

import keras
import numpy as np
import pytest

import keras_diagwise
from keras_diagwise.importers import caffe
from keras_diagwise.importers.weights import Weight
from tests.importers.caffe_nets import CEIL, FLOOR, Writer
from tests.importers.mobile_nets import mobilenet, mobilenet_v2

MAX_ERROR = 1e-5


def images(size=16, width=None, channels=3, batch=2):
    shape = (batch, channels, size, width or size)
    return np.random.default_rng(1).standard_normal(shape).astype("float32")


def difference(folder, net):
    """The largest between the model's output and the writer's."""
    model = caffe.load(*net.write(folder))
    batch = net.images.transpose(0, 2, 3, 1)
    found = model.predict(batch, verbose=0)
    expected = net.values[net.last]
    if expected.ndim == 4:
        expected = expected.transpose(0, 2, 3, 1)
    return np.abs(found - expected.reshape(found.shape)).max()


@pytest.mark.parametrize(
    "settings",
    [{}, {"in_place": False}, {"depthwise": "ConvolutionDepthwise"}],
    ids=["groups", "not in place", "depthwise"],
)
@pytest.mark.parametrize("make", [mobilenet, mobilenet_v2])
def test_mobile_networks(tmp_path, make, settings):
    net = Writer(images(64), **settings)
    net.softmax(make(net))
    assert difference(tmp_path, net) <= MAX_ERROR
    model = caffe.load(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    assert any(type(each) is keras.layers.DepthwiseConv2D for each in model.layers)


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
    net.conv("data", 6, 3, **options)
    assert difference(tmp_path, net) <= MAX_ERROR


def test_height_and_width_apart(tmp_path):
    """A field for each, as Caffe has them of its convolutions and poolings."""
    net = Writer(images(9, 12))
    net.conv("data", 4, 3, stride=2)
    prototxt, _ = net.write(tmp_path)
    text = prototxt.read_text()
    for name, pair in (("kernel_size: 3", "kernel"), ("stride: 2", "stride")):
        size = name[-1]
        assert name in text
        text = text.replace(name, f"{pair}_h: {size} {pair}_w: {size}")
    model = caffe.load(*net.write(tmp_path))
    prototxt.write_text(text)
    again = caffe.load(prototxt, tmp_path / "net.caffemodel")
    batch = net.images.transpose(0, 2, 3, 1)
    expected = model.predict(batch, verbose=0)
    np.testing.assert_array_equal(again.predict(batch, verbose=0), expected)


POOLINGS = {
    "max": ("MAX", 2, 2),
    "max, 3 by 2": ("MAX", 3, 2),
    "max, padding": ("MAX", 3, 2, 1),
    "max, floor": ("MAX", 2, 2, 0, FLOOR),
    "max, a window less": ("MAX", 3, 5, 1, CEIL),
    "average": ("AVE", 3, 2),
    "average, padding": ("AVE", 3, 1, 1),
    "average of all": ("AVE", 9, 1),
}


@pytest.mark.parametrize("options", POOLINGS.values(), ids=POOLINGS)
def test_pooling(tmp_path, options):
    net = Writer(images(9))
    net.pool(net.norm("data"), *options)
    assert difference(tmp_path, net) <= MAX_ERROR


def test_other_layers(tmp_path):
    net = Writer(images(8))
    x = net.leaky(net.norm(net.conv("data", 8, 3, bias=True), bias=False), 0.125)
    x = net.multiply(x, net.sigmoid(net.conv(x, 8, 1)))
    x = net.concat(net.dropout(x), net.tanh(net.conv(x, 5, 3)))
    net.softmax(net.dense(net.relu(net.dense(x, 12)), 4))
    assert difference(tmp_path, net) <= MAX_ERROR


@pytest.mark.parametrize("factor", [0.5, 1000.0])
def test_sums_of_statistics(tmp_path, factor):
    """The third blob of a BatchNorm divides the others."""
    net = Writer(images(8))
    net.norm("data", factor)
    assert difference(tmp_path, net) <= MAX_ERROR


@pytest.mark.parametrize("value", [-1.0, np.inf, np.nan])
def test_impossible_statistics(value):
    """What a hostile factor makes of a variance."""
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.BatchNormalization(name="norm")]
    )
    weight = Weight("variance of norm", "norm", "moving_variance", (2,))
    with pytest.raises(ValueError, match="variance of norm, divided by the layer's"):
        weight.put(model, np.array([1.0, value], "float32"))


def test_old_caffemodel(tmp_path):
    """Layers in another field, blobs of four axes."""
    net = Writer(images(8), old=True)
    net.dense(net.relu(net.conv("data", 4, 3, stride=2, bias=True)), 3)
    assert difference(tmp_path, net) <= MAX_ERROR


@pytest.mark.parametrize(
    "size", ["input_dim: 2 input_dim: 3 input_dim: 8 input_dim: 8", "layer"]
)
def test_inputs(tmp_path, size):
    net = Writer(images(8))
    net.conv("data", 4, 3)
    prototxt, caffemodel = net.write(tmp_path)
    text = net.prototxt().partition("\n")[2].partition("\n")[2]
    shape = "input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } }"
    layer = f"layer {{ name: 'data' type: 'Input' top: 'data' {shape} }}\n"
    head = layer if size == "layer" else f'input: "data"\n{size}\n'
    prototxt.write_text(head + text)
    assert caffe.load(prototxt, caffemodel).input_shape == (None, 8, 8, 3)


def test_trained_model_goes_back(tmp_path):
    """Converted, by way of a `.keras` file, and read again."""
    net = Writer(images(8))
    x = net.relu(net.norm(net.conv("data", 6, 3)))
    x = net.relu6(net.norm(net.conv(x, 6, 3, groups=6), bias=False))
    net.softmax(net.dense(net.mean(x), 4))
    prototxt, caffemodel = net.write(tmp_path)
    model = keras_diagwise.convert(caffe.load(prototxt, caffemodel), verbose=0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    batch = net.images.transpose(0, 2, 3, 1)
    model.fit(batch, np.arange(2), epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    trained = tmp_path / "trained.caffemodel"
    caffe.save(model, prototxt, trained)
    expected = model.predict(batch, verbose=0)
    again = caffe.load(prototxt, trained).predict(batch, verbose=0)
    np.testing.assert_allclose(again, expected, atol=1e-6)
    caffe.save(caffe.load(prototxt, trained), prototxt, tmp_path / "again.caffemodel")
    assert (tmp_path / "again.caffemodel").read_bytes() == trained.read_bytes()
