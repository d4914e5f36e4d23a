"""Darknet's networks: every layer by its definition, and the way there and back."""

import struct

import keras
import numpy as np
import pytest

import keras_diagwise
from keras_diagwise.importers import darknet
from tests.importers import darknet_nets, darknet_reference
from tests.importers.darknet_nets import conv, net, section

MAX_ERROR = 1e-5
ACTIVATIONS = [
    *("linear", "logistic", "swish", "mish", "relu", "relu6", "leaky", "tanh", "elu"),
    "selu",
]


def written(folder, cfg, **settings):
    """Paths of a cfg and of random weights for it."""
    size = shape_of(cfg)
    drawn = darknet_reference.Drawn(**settings)
    darknet_reference.run(cfg, np.zeros((1, *size)), drawn)
    paths = folder / "net.cfg", folder / "net.weights"
    paths[0].write_text(cfg)
    paths[1].write_bytes(drawn.to_bytes())
    return paths


def shape_of(cfg):
    options = darknet_reference.sections(cfg)[0][1]
    return [int(options[name]) for name in ("channels", "height", "width")]


def compared(folder, cfg, batch=2, scale=1.0):
    """The largest difference between the model's outputs and the reference's."""
    drawn = darknet_reference.Drawn()
    images = scale * np.random.default_rng(1).standard_normal((batch, *shape_of(cfg)))
    images = images.astype("float32")
    expected = darknet_reference.run(cfg, images, drawn)
    paths = folder / "net.cfg", folder / "net.weights"
    paths[0].write_text(cfg)
    paths[1].write_bytes(drawn.to_bytes())
    model = darknet.load(*paths)
    outputs = model.predict(images.transpose(0, 2, 3, 1), verbose=0)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    assert len(outputs) == len(expected)
    return max(difference(*pair) for pair in zip(outputs, expected, strict=True))


def difference(output, expected):
    if output.ndim == 2:
        return np.abs(output - expected.reshape(len(expected), -1)).max()
    return np.abs(output - expected.transpose(0, 2, 3, 1)).max()


CONVOLUTIONS = {
    "1x1": {"size": 1},
    "3x3": {"size": 3},
    "stride": {"size": 3, "stride": 2},
    "large stride": {"size": 1, "stride": 3},
    "even size": {"size": 2, "stride": 2},
    "even size, stride 1": {"size": 4},
    "unequal strides": {"size": 3, "stride_x": 2, "stride_y": 1},
    "groups": {"size": 3, "groups": 2, "stride": 2},
    "depthwise": {"size": 3, "groups": 6, "filters": 6},
    "depthwise, stride": {"size": 5, "groups": 6, "filters": 6, "stride": 2},
    "depthwise, unequal": {"size": 3, "groups": 6, "filters": 6, "stride_x": 2},
    "two filters a channel": {"size": 3, "groups": 6, "filters": 12},
    "dilation": {"size": 3, "dilation": 2},
    "depthwise, dilation": {"size": 3, "groups": 6, "filters": 6, "dilation": 2},
    "padding": {"size": 3, "pad": 0, "padding": 2},
    "no padding": {"size": 3, "pad": 0, "stride": 2},
}


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_ops(tmp_path, options):
    """Of an axis of even size, and an odd one."""
    layer = {"filters": 4, "batch_normalize": 0, "pad": 1, **options}
    cfg = net(8, 6, 7) + section("convolutional", activation="linear", **layer)
    assert compared(tmp_path, cfg) <= MAX_ERROR


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("layer", ["convolutional", "connected", "shortcut"])
def test_activation(tmp_path, kind, layer):
    """On values from far below to far above zero."""
    last = {
        "convolutional": section("convolutional", filters=8, activation=kind),
        "connected": section("connected", output=8, activation=kind),
        "shortcut": section("shortcut", from_=-2, activation=kind),
    }[layer]
    cfg = net(4, 2) + 2 * section("dropout", probability=0) + last
    assert compared(tmp_path, cfg, scale=4.0) <= MAX_ERROR


def test_activation_of_none_is_logistic(tmp_path):
    cfg = net(4) + section("convolutional", filters=2) + section("connected", output=3)
    assert compared(tmp_path, cfg) <= MAX_ERROR


OTHERS = {
    "batch norm": conv(4, 3, "leaky") + section("batchnorm"),
    "connected": section("connected", output=5, batch_normalize=1, activation="relu"),
    "convolution of one pixel": section("connected", output=5) + conv(3, 3),
    "two connected": section("connected", output=6) + section("connected", output=5),
    "maxpool": section("maxpool", size=2, stride=2),
    "maxpool, stride 1": section("maxpool", size=2, stride=1),
    "maxpool, 3 by 2": section("maxpool", size=3, stride=2),
    "maxpool, 5 by 1": section("maxpool", size=5, stride=1),
    "maxpool, 4 by 3": section("maxpool", size=4, stride=3),
    "maxpool, no padding": section("maxpool", size=3, stride=2, padding=0),
    "maxpool, some padding": section("maxpool", size=5, stride=2, padding=2),
    "maxpool, unequal": section("maxpool", size=3, stride_x=1, stride_y=2),
    "maxpool, defaults": section("maxpool"),
    "avgpool": section("avgpool"),
    "route": conv(4) + conv(6, 3) + section("route", layers="-1,-2,0"),
    "route of one": conv(4) + section("dropout") + section("route", layers=-2),
    "route, groups": conv(6) + section("route", layers=-1, groups=3, group_id=1),
    "route, groups of two": conv(6)
    + conv(3)
    + section("route", layers="0,1", groups=3, group_id=2),
    "shortcut": conv(4)
    + conv(4, 3)
    + section("shortcut", from_=-2, activation="leaky"),
    "shortcut, more channels": conv(7) + conv(4) + section("shortcut", from_=-2),
    "shortcut, fewer channels": conv(4) + conv(7) + section("shortcut", from_=0),
    "shortcut of two": conv(4) + conv(6) + conv(5) + section("shortcut", from_="0,-2"),
    "scale_channels": conv(4)
    + section("avgpool")
    + conv(4, 1, "logistic")
    + section("scale_channels", from_=-3, activation="leaky"),
    "scale_channels, pixels": conv(4)
    + conv(1, 1, "logistic")
    + section("scale_channels", from_=0, scale_wh=1),
    "sam": conv(4) + conv(4, 1, "logistic") + section("sam", from_=-2),
    "upsample": section("upsample", stride=2),
    "upsample, scale": section("upsample", stride=3, scale=0.5),
    "softmax": section("avgpool") + conv(7) + section("softmax"),
    "softmax of an image": conv(4) + section("softmax", groups=1, temperature=3),
    "softmax, groups": section("connected", output=6) + section("softmax", groups=2),
    "dropout and cost": conv(4) + section("dropout", probability=0.5) + section("cost"),
    "two heads": conv(4) + section("yolo") + conv(6, 3, stride=2) + section("region"),
}


@pytest.mark.parametrize("layers", OTHERS.values(), ids=OTHERS)
def test_other_layers(tmp_path, layers):
    assert compared(tmp_path, net(8, 3, 9) + layers) <= MAX_ERROR


PUBLISHED = {
    "efficientnet_b0": (darknet_nets.efficientnet_b0(64), 16),
    "enet_coco": (darknet_nets.enet_coco(64), 16),
    "yolo_fastest": (darknet_nets.yolo_fastest(64), 28),
}


@pytest.mark.parametrize(("cfg", "depthwise"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_networks(tmp_path, cfg, depthwise):
    assert compared(tmp_path, cfg, batch=1) <= MAX_ERROR
    paths = tmp_path / "net.cfg", tmp_path / "net.weights"
    model = darknet.load(*paths)
    found = [
        each for each in model.layers if type(each) is keras.layers.DepthwiseConv2D
    ]
    assert len(found) == depthwise
    darknet.save(model, paths[0], tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == paths[1].read_bytes()


SMALL = (
    net(8)
    + conv(8, 3, "leaky", stride=2)
    + darknet_nets.depthwise(8, 3, "swish")
    + conv(6, 3, "relu", groups=2)
    + section("batchnorm")
    + section("connected", output=5, batch_normalize=1)
    + section("connected", output=4, activation="linear")
    + section("softmax")
)


@pytest.mark.parametrize(
    ("version", "seen"), [((0, 1, 0), 7), ((0, 2, 0), 2**40), ((1, 0, 3), 0)]
)
def test_round_trip_of_versions(tmp_path, version, seen):
    """Of a count of 32 bits, and of one of 64."""
    cfg, weights = written(tmp_path, SMALL, version=version, seen=seen)
    darknet.save(darknet.load(cfg, weights), cfg, tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == weights.read_bytes()


def test_trained_model_goes_back(tmp_path):
    """By way of a conversion and of a `.keras` file, both of which keep the header."""
    cfg, weights = written(tmp_path, SMALL, seen=640)
    model = keras_diagwise.convert(darknet.load(cfg, weights), verbose=0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    images = np.random.default_rng(0).random((16, 8, 8, 3)).astype("float32")
    model.fit(images, np.arange(16) % 4, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    darknet.save(model, cfg, tmp_path / "trained.weights")
    content = (tmp_path / "trained.weights").read_bytes()
    assert content[:20] == struct.pack("<3iQ", 0, 2, 5, 640)
    assert content != weights.read_bytes()
    again = darknet.load(cfg, tmp_path / "trained.weights")
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(again.predict(images, verbose=0), expected, atol=1e-6)


def test_weights_of_another_structure(tmp_path):
    cfg, weights = written(tmp_path, SMALL)
    model = darknet.load(cfg, weights)
    cfg.write_text(SMALL.replace("output=5", "output=6"))
    with pytest.raises(ValueError, match=r"connected_4_batchnorm.*\(6,\).*\(5,\)"):
        darknet.save(model, cfg, tmp_path / "again.weights")
    assert not (tmp_path / "again.weights").exists()
    with pytest.raises(ValueError, match=r"'convolutional_0_batchnorm'.*None"):
        darknet.save(keras.Sequential([keras.Input((3,))]), cfg, weights)
