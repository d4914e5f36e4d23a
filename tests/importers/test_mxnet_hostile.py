"""MXNet's files from anywhere: refused by place and reason, at no cost."""

import json
import random
import struct

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from keras_diagwise.importers import mxnet
from tests.importers import hostile
from tests.importers.mxnet_nets import Writer

PLACE = r"node \d+|byte \d+|must have at most|must be a plain file"
WORDS = ["op", "Pooling", "inputs", "attrs", "nodes", "num_group", "data", "\x00"]


def network():
    net = Writer(np.zeros((1, 3, 8, 8)))
    x = net.relu(net.norm(net.conv(net.image, 8, 3, 2), fix_gamma=True))
    y = net.relu6(net.norm(net.conv(x, 8, 3, groups=8, bias=True)))
    x = net.concat(net.add(x, y), net.pool(y, "max", 3, 1, 1))
    net.softmax_output(net.dense(net.flatten(net.mean(x)), 4))
    return net


def load(*paths):
    return mxnet.load(*paths, image_size=8)


@hypothesis.given(seed=st.integers(0, 2**32))
def test_damaged_files(tmp_path_factory, seed):
    draw = random.Random(seed)
    symbol, params = network().write(tmp_path_factory.mktemp("damaged"))
    kind = draw.random()
    if kind < 0.3:
        lines = json.dumps(json.loads(symbol.read_text()), indent=1)
        symbol.write_text(hostile.changed_text(draw, lines, WORDS), encoding="utf-8")
    elif kind < 0.6:
        symbol.write_text(changed_nodes(draw, symbol.read_text()), encoding="utf-8")
    else:
        params.write_bytes(hostile.changed_bytes(draw, params.read_bytes()))
    assert hostile.fault(load, (symbol, params), PLACE) is None


def changed_nodes(draw, text):
    """A symbol of which a value is another."""
    contents = json.loads(text)
    values = [*hostile.NUMBERS, None, [], {}, [[]], -1, 10**30, 0.5, True, "Concat"]
    for _ in range(draw.choice([1, 1, 2, 4])):
        node = draw.choice(contents["nodes"])
        place = draw.choice(
            ["op", "name", "inputs", "attrs", "attrs", "input", "heads"]
        )
        attributes = node.get("attrs")
        if place == "attrs" and isinstance(attributes, dict) and attributes:
            attributes[draw.choice(list(attributes))] = draw.choice(values)
        elif place == "input" and isinstance(node["inputs"], list) and node["inputs"]:
            node["inputs"][0] = draw.choice([[draw.randrange(60), 0, 0], *values])
        elif place == "heads":
            contents["heads"] = draw.choice([[[draw.randrange(60), 0, 0]], *values])
        else:
            node[place] = draw.choice(values)
    return json.dumps(contents)


def refusal(paths):
    assert hostile.fault(load, paths, PLACE) is None
    return hostile.refusal(load, paths)


def changed(tmp_path, change):
    """Files of which `change` has changed the nodes by their ops."""
    symbol, params = network().write(tmp_path)
    contents = json.loads(symbol.read_text())
    change({each["op"]: each for each in reversed(contents["nodes"])}, contents)
    symbol.write_text(json.dumps(contents))
    return symbol, params


WRONG = {
    "an unknown op": (
        lambda ops, all_: ops["clip"].update(op="RNN"),
        "its type must be",
    ),
    "an unknown attribute": (
        lambda ops, all_: ops["Convolution"]["attrs"].update(layout2="x"),
        "node 2, Convolution conv1: an option that is not supported",
    ),
    "an activation": (
        lambda ops, all_: ops["Activation"]["attrs"].update(act_type="softsign"),
        "`act_type` must be relu or sigmoid or tanh",
    ),
    "negative filters": (
        lambda ops, all_: ops["Convolution"]["attrs"].update(num_filter="-8"),
        "`num_filter` must be an integer from 1",
    ),
    "many filters": (
        lambda ops, all_: ops["Convolution"]["attrs"].update(num_filter="999999999"),
        "values",
    ),
    "groups": (
        lambda ops, all_: ops["Convolution"]["attrs"].update(num_group="3"),
        "its groups must divide 8 filters",
    ),
    "a node to come": (
        lambda ops, all_: ops["Pooling"].update(inputs=[[40, 0, 0]]),
        "inputs, which are first outputs of nodes before it",
    ),
    "the node itself": (
        lambda ops, all_: ops["Flatten"].update(
            inputs=[[all_["nodes"].index(ops["Flatten"]), 0, 0]]
        ),
        "nodes before it",
    ),
    "no parameter": (
        lambda ops, all_: ops["FullyConnected"]["inputs"].pop(),
        "input 2 must be a parameter",
    ),
    "another shape": (
        lambda ops, all_: ops["FullyConnected"]["attrs"].update(num_hidden="5"),
        "of shape (5, 16). Received: (4, 16)",
    ),
    "no head": (lambda ops, all_: all_.update(heads=[]), "byte 0: a symbol must have"),
    "no nodes": (lambda ops, all_: all_.pop("nodes"), "byte 0: a symbol must have"),
}


@pytest.mark.parametrize(("change", "wrong"), WRONG.values(), ids=WRONG)
def test_symbol_is_refused_by_node(tmp_path, change, wrong):
    assert wrong in refusal(changed(tmp_path, change))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 10**6, '{"a":0}', "[1]", "null", "[" + "[]," * 300_000 + "0]"],
)
def test_no_symbol(tmp_path, text):
    symbol, params = network().write(tmp_path)
    symbol.write_text(text)
    assert "byte" in refusal((symbol, params))


def test_symbol_of_megabytes(tmp_path):
    symbol, params = network().write(tmp_path)
    symbol.write_text(" " * 2**22)
    assert "at most 1,048,576 bytes" in refusal((symbol, params))


@pytest.mark.parametrize("length", [0, 10, 24, 40, 100, 1000])
def test_truncated_params(tmp_path, length):
    symbol, params = network().write(tmp_path)
    params.write_bytes(params.read_bytes()[:length])
    assert f"it ends at {length}" in refusal((symbol, params))


def test_params_of_terabytes(tmp_path):
    """By their sizes: of an array, of their number, and of a name."""
    symbol, params = network().write(tmp_path)
    content = params.read_bytes()
    huge = struct.pack("<q", 2**40)
    params.write_bytes(content[:36] + huge + content[44:])
    assert "bytes should follow" in refusal((symbol, params))
    params.write_bytes(content[:16] + huge + content[24:])
    assert "at most 32768 arrays. Received: 1099511627776" in refusal((symbol, params))
    names = content.index(b"arg:")
    params.write_bytes(content[: names - 8] + huge + content[names:])
    assert "at most 512 letters. Received: 1099511627776" in refusal((symbol, params))


def test_params_that_are_not_finite(tmp_path):
    symbol, params = network().write(tmp_path)
    content = params.read_bytes()
    start = 24 + 12 + 4 * 8 + 12
    params.write_bytes(
        content[:start] + struct.pack("<f", float("nan")) + content[start + 4 :]
    )
    text = refusal((symbol, params))
    assert f"byte {start}: the kernel of" in text
    assert "Received: nan" in text


@pytest.mark.parametrize(
    ("byte", "wrong"),
    [
        (24, "byte 28: an array must begin here"),
        (28, "byte 32: an array must be dense"),
        (76, "byte 80: an array must be of float32"),
    ],
)
def test_params_of_another_kind(tmp_path, byte, wrong):
    symbol, params = network().write(tmp_path)
    content = params.read_bytes()
    params.write_bytes(content[:byte] + b"\x02" + content[byte + 1 :])
    assert wrong in refusal((symbol, params))
