"""Darknet's files from anywhere: refused by place and reason, at no cost."""

import random
import re
import struct

import hypothesis
import hypothesis.strategies as st
import pytest

from keras_diagwise.importers import darknet
from tests.importers import hostile
from tests.importers.darknet_nets import conv, net, section
from tests.importers.test_darknet import SMALL, written

PLACE = r"line \d+|byte \d+|must have at most|must be a plain file"

NETWORK = (
    net(8)
    + conv(8, 3, "leaky", stride=2)
    + section("maxpool", size=2, stride=1)
    + conv(8, 3, "mish", groups=8)
    + section("route", layers="-1,-3", groups=2, group_id=1)
    + section("upsample", stride=2)
    + conv(6, 1, "selu")
    + section("shortcut", from_=-2, activation="relu6")
    + section("avgpool")
    + section("scale_channels", from_=-2)
    + section("dropout", probability=0.5)
    + section("connected", output=5, batch_normalize=1)
    + section("softmax", groups=1)
    + section("cost", type="sse")
)
WORDS = [
    "route",
    "layers",
    "from",
    "filters",
    "groups",
    "nonsense",
    "crop",
    "\x00",
    "[",
]


@hypothesis.given(seed=st.integers(0, 2**32))
def test_damaged_files(tmp_path_factory, seed):
    draw = random.Random(seed)
    cfg, weights = written(tmp_path_factory.mktemp("damaged"), NETWORK)
    if draw.random() < 0.6:
        text = hostile.changed_text(draw, NETWORK, WORDS)
        cfg.write_text(text, encoding="utf-8")
    else:
        weights.write_bytes(hostile.changed_bytes(draw, weights.read_bytes()))
    assert hostile.fault(darknet.load, (cfg, weights), PLACE) is None


def refusal(cfg, weights):
    assert hostile.fault(darknet.load, (cfg, weights), PLACE) is None
    return hostile.refusal(darknet.load, (cfg, weights))


WRONG = {
    "no net": (section("avgpool") + conv(2), "line 1, [avgpool]"),
    "no layer": (net(8), "layers behind it"),
    "nothing": ("", "line 1"),
    "no section": ("filters=2\n" + net(8), "line 1"),
    "no option": (net(8) + "[convolutional]\nfilters 2\n", "line 6"),
    "no size": ("[net]\nwidth=8\nchannels=3\n" + conv(2), "`height`"),
    "an unknown section": (net(8) + section("crop"), "line 5, [crop]"),
    "an unknown option": (net(8) + conv(2, xnor=1), "line 11, [convolutional]"),
    "an unknown activation": (net(8) + conv(2, activation="ramp"), "`activation`"),
    "negative filters": (net(8) + conv(-3), "line 7, [convolutional]: `filters`"),
    "many filters": (net(8) + conv(2**31 - 1), "1 to 2,147,483,647 values"),
    "more filters": (net(8) + conv(2**31), "`filters`"),
    "groups": (
        net(8) + conv(6, groups=2),
        "line 5, [convolutional]: its groups must divide",
    ),
    "a kernel beyond the image": (net(8) + conv(2, 11, pad=0), "height × width"),
    "dilation of a stride": (net(8) + conv(2, 3, dilation=2, stride=2), "strides of 1"),
    "a layer to come": (net(8) + section("route", layers="0,2"), "line 6, [route]"),
    "the layer itself": (net(8) + conv(2) + section("route", layers=1), "`layers`"),
    "a layer before all": (net(8) + conv(2) + section("route", layers=-2), "`layers`"),
    "no layer's number": (net(8) + conv(2) + section("route", layers="a"), "`layers`"),
    "no layers": (net(8) + conv(2) + section("route"), "line 11, [route]"),
    "unlike sizes": (
        net(8) + conv(2) + conv(2, stride=2) + section("route", layers="-1,-2"),
        "must be of one size",
    ),
    "unlike sizes, added": (
        net(8) + conv(2) + conv(2, stride=2) + section("shortcut", from_=-2),
        "`from` must be of 4×4 pixels",
    ),
    "unlike factors": (
        net(8) + conv(2) + conv(2, 3) + section("scale_channels", from_=-2),
        "`from` must be one layer",
    ),
    "weighted sums": (
        net(8) + conv(3) + section("shortcut", from_=-1, weights_type="per_channel"),
        "not supported must be 0 or left out. Received: weights_type=per_channel",
    ),
    "a layer that is not used": (
        net(8) + conv(2) + conv(2) + section("route", layers=0),
        "line 11, [convolutional]: no output depends on its weights",
    ),
    "a probability": (net(8) + section("dropout", probability="nan"), "`probability`"),
    "thousands of layers": (net(8) + 5000 * section("cost"), "at most 4096 layers"),
    "an image of terabytes": (net(2**20) + conv(2), "line 1, [net]"),
}


@pytest.mark.parametrize(("text", "wrong"), WRONG.values(), ids=WRONG)
def test_cfg_is_refused_by_line(tmp_path, text, wrong):
    cfg, weights = written(tmp_path, SMALL)
    cfg.write_text(text)
    assert wrong in refusal(cfg, weights)


def test_cfg_of_megabytes(tmp_path):
    cfg, weights = written(tmp_path, SMALL)
    cfg.write_text(net(8) + 200_000 * section("avgpool"))
    assert "at most 1,048,576 bytes" in refusal(cfg, weights)


def test_weights_of_terabytes(tmp_path):
    """A cfg that asks for them, and a file that has them, as holes."""
    cfg, weights = written(tmp_path, SMALL)
    content = weights.read_bytes()
    with weights.open("r+b") as file:
        file.truncate(2**40)
    assert f"byte {len(content)}: " in refusal(cfg, weights)
    weights.write_bytes(content)
    huge = section("connected", output=2**31 - 1)
    cfg.write_text(net(2**10) + huge)
    assert f"byte {len(content)}: it ends within the bias" in refusal(cfg, weights)


@pytest.mark.parametrize("length", [0, 11, 15, 19, 20, 500])
def test_truncated_weights(tmp_path, length):
    cfg, weights = written(tmp_path, SMALL)
    weights.write_bytes(weights.read_bytes()[:length])
    assert f"byte {length if length > 19 else 0}: " in refusal(cfg, weights)


@pytest.mark.parametrize(
    ("byte", "value"), [(20, float("nan")), (84, float("inf")), (116, -1.0)]
)
def test_values_that_are_none(tmp_path, byte, value):
    """Of a bias, a mean and a variance of the first layer."""
    cfg, weights = written(tmp_path, SMALL)
    content = bytearray(weights.read_bytes())
    content[byte : byte + 4] = struct.pack("<f", value)
    weights.write_bytes(content)
    text = refusal(cfg, weights)
    assert re.search(rf"byte {byte}: .*line 5, \[convolutional\].*{value}", text)


def test_version_that_is_none(tmp_path):
    cfg, weights = written(tmp_path, SMALL)
    for version in (-1, 1000, 2**31 - 1):
        weights.write_bytes(struct.pack("<i", version) + weights.read_bytes()[4:])
        assert "byte 0: " in refusal(cfg, weights)


def test_folder_and_no_file(tmp_path):
    cfg, _ = written(tmp_path, SMALL)
    assert "`weights` must be a plain file" in refusal(cfg, tmp_path)
    with pytest.raises(ValueError, match="`weights` must be a file that can be read"):
        darknet.load(cfg, tmp_path / "none")
    with pytest.raises(ValueError, match="`cfg` must be a file that can be read"):
        darknet.load("a\0b", tmp_path)
