"""Caffe's files from anywhere: refused by place and reason, at no cost."""

import random
import struct

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from keras_diagwise.importers import caffe
from tests.importers import hostile
from tests.importers.caffe_nets import Writer, blob, field, varint

PLACE = r"line \d+|byte \d+|must have at most|must be a plain file"
WORDS = ["layer", "bottom", "dim", "pool", "PROD", "{", "}", '"', "\x00", "group"]


def network():
    net = Writer(np.zeros((1, 3, 8, 8)))
    x = net.relu(net.norm(net.conv("data", 8, 3, 2)))
    y = net.relu6(net.norm(net.conv(x, 8, 3, groups=8, bias=True)))
    x = net.concat(net.add(x, y), net.pool(y, "MAX", 3, 1, 1))
    net.softmax(net.dense(net.mean(x), 4))
    return net


@hypothesis.given(seed=st.integers(0, 2**32))
def test_damaged_files(tmp_path_factory, seed):
    draw = random.Random(seed)
    prototxt, caffemodel = network().write(tmp_path_factory.mktemp("damaged"))
    if draw.random() < 0.5:
        text = hostile.changed_text(draw, prototxt.read_text(), WORDS)
        prototxt.write_text(text, encoding="utf-8")
    else:
        caffemodel.write_bytes(hostile.changed_bytes(draw, caffemodel.read_bytes()))
    assert hostile.fault(caffe.load, (prototxt, caffemodel), PLACE) is None


def refusal(paths):
    assert hostile.fault(caffe.load, paths, PLACE) is None
    return hostile.refusal(caffe.load, paths)


WRONG = {
    "an unknown type": ('"ReLU6"', '"LSTM"', "line 52, layer relu67: its type must be"),
    "an unknown field": ("pool: MAX", "pool: MAX quant: 3", "not supported"),
    "a phase": ('type: "Concat"', 'type: "Concat" include { phase: TRAIN }', "include"),
    "negative outputs": (
        "num_output: 8",
        "num_output: -8",
        "`num_output` must be an integer",
    ),
    "many outputs": ("num_output: 8", "num_output: 2147483647", "1 to 2,147,483,647"),
    "groups": (
        "group: 8",
        "group: 3",
        "its groups must divide 8 filters and 8 channels",
    ),
    "a blob to come": (
        'bottom: "data"',
        'bottom: "softmax12"',
        "the top of one layer above",
    ),
    "one name twice": (
        '"convolution4"\n',
        '"convolution0"\n',
        "must not have one name",
    ),
    "no size": ("dim: 1 dim: 3", "dim: 3", "line 2: the input must have the sizes"),
    "a huge image": ("dim: 8 dim: 8", "dim: 99999 dim: 99999", "1 to 2,147,483,647"),
    "a lone Scale": (
        'type: "Scale"\n  bottom: "convolution0"',
        'type: "Scale"\n  bottom: "data"',
        "must stand behind a BatchNorm",
    ),
    "other outputs": ("num_output: 4", "num_output: 5", "(5, 16)"),
    "another name": ('"conv', '"\u00e9', "must be a blob of layer \u00e9olution0"),
    "no end": ("type: 'msra' }", "type: 'msra'", "line 3: this message has no end"),
    "two ends": ("type: 'msra' }", "type: 'msra' }}}}", "Received: }"),
    "no name": ("group: 8", ": 8", "Received: :"),
    "a text without end": ("type: 'msra'", "type: 'msra", "line 8: it must be proto"),
    "old layers": ("layer {", "layers {", "must upgrade"),
}


@pytest.mark.parametrize(("part", "other", "wrong"), WRONG.values(), ids=WRONG)
def test_prototxt_is_refused_by_line(tmp_path, part, other, wrong):
    prototxt, caffemodel = network().write(tmp_path)
    text = prototxt.read_text()
    assert part in text
    prototxt.write_text(text.replace(part, other, 1), encoding="utf-8")
    assert wrong in refusal((prototxt, caffemodel))


@pytest.mark.parametrize("text", ["", "\x00", "a {" * 10**5, "a:1 " * 10**5, '"'])
def test_no_prototxt(tmp_path, text):
    prototxt, caffemodel = network().write(tmp_path)
    prototxt.write_text(text)
    assert "line 1" in refusal((prototxt, caffemodel))


@pytest.mark.parametrize("length", [0, 1, 11, 14, 100, 900])
def test_truncated_caffemodel(tmp_path, length):
    prototxt, caffemodel = network().write(tmp_path)
    caffemodel.write_bytes(caffemodel.read_bytes()[:length])
    assert "byte" in refusal((prototxt, caffemodel))


def test_caffemodel_of_terabytes(tmp_path):
    """As holes in a file, and by the size of a layer or blob that it names."""
    prototxt, caffemodel = network().write(tmp_path)
    content = caffemodel.read_bytes()
    with caffemodel.open("r+b") as file:
        file.truncate(2**40)
    assert f"byte {len(content)}: field 0" in refusal((prototxt, caffemodel))
    huge = varint(8 * 100 + 2) + varint(2**40)
    caffemodel.write_bytes(huge + content)
    assert "byte 0: field 100 of 1,099,511,627,776 bytes" in refusal(
        (prototxt, caffemodel)
    )


def test_caffemodel_of_many_fields(tmp_path):
    prototxt, caffemodel = network().write(tmp_path)
    caffemodel.write_bytes(field(3, 1) * 10**6)
    assert "byte 200000: there are more than 100,000 fields" in refusal(
        (prototxt, caffemodel)
    )
    dimensions = field(7, field(1, bytes(10**6)))
    layer = field(1, b"convolution0") + field(7, dimensions)
    caffemodel.write_bytes(field(100, layer))
    assert "Received: 0 bytes of shape (0, 0" in refusal((prototxt, caffemodel))


def test_number_without_end(tmp_path):
    prototxt, caffemodel = network().write(tmp_path)
    caffemodel.write_bytes(b"\xff" * 100)
    assert "byte 10: a number should end here" in refusal((prototxt, caffemodel))


def test_values_that_are_not_finite(tmp_path):
    prototxt, caffemodel = network().write(tmp_path)
    content = caffemodel.read_bytes()
    kernel = network().blobs["convolution0"][0]
    changed = kernel.copy()
    changed[0, 0, 0, 1] = np.inf
    start = content.index(blob(kernel)) + len(blob(kernel)) - kernel.nbytes
    caffemodel.write_bytes(content.replace(blob(kernel), blob(changed)))
    assert f"byte {start + 4}: the kernel of" in refusal((prototxt, caffemodel))
    assert content[start : start + 4] == struct.pack("<f", kernel[0, 0, 0, 0])
