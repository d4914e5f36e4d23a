"""`keras-diagwise import` and `export`: a model of another framework, and back."""

import json

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import keras_diagwise
from keras_diagwise_cli import app
from tests.cli.lines import refusal
from tests.importers.mobile_nets import mobilenet
from tests.importers.mxnet_nets import Writer
from tests.importers.test_darknet import SMALL, written


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_there_and_back(tmp_path):
    cfg, weights = written(tmp_path, SMALL)
    file = tmp_path / "model.keras"
    done = run("import", cfg, weights, "-o", file, "--json")
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    model = keras.models.load_model(file)
    assert figures["parameters"] == model.count_params()
    content = weights.read_bytes()
    weights.unlink()
    done = run("export", file, "--to", weights)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip().endswith(f"net.weights: {len(content):,} bytes")
    assert weights.read_bytes() == content


def test_convert(tmp_path):
    cfg, weights = written(tmp_path, SMALL)
    file = tmp_path / "model.keras"
    done = run("import", cfg, weights, "-o", file, "--convert")
    assert done.exit_code == 0, done.output
    layers = keras.models.load_model(file).layers
    ours = keras_diagwise.DiagonalwiseDepthwiseConv2D
    assert [each.name for each in layers if isinstance(each, ours)] == [
        "convolutional_1"
    ]
    again = tmp_path / "again.weights"
    done = run("export", file, "--to", again, "--structure", cfg, "--json")
    assert json.loads(done.stdout)["file"] == str(again)
    assert again.read_bytes() == weights.read_bytes()


def test_a_model_of_mxnet(tmp_path):
    net = Writer(np.zeros((1, 3, 32, 32)))
    mobilenet(net)
    symbol, weights = net.write(tmp_path)
    file = tmp_path / "model.keras"
    done = run("import", symbol, weights, "-o", file, "--image-size", 32)
    assert done.exit_code == 0, done.output
    assert keras.models.load_model(file).input_shape == (None, 32, 32, 3)
    again = tmp_path / "net-0001.params"
    done = run("export", file, "--to", again)
    assert done.exit_code == 0, done.output
    assert again.read_bytes() == weights.read_bytes()


@pytest.mark.parametrize(
    ("there", "words", "wrong"),
    [
        ("net.cfg net.weights", "import net.cfg net.weights -o model.h5", "'model.h5'"),
        (
            "net.txt net.weights",
            "import net.txt net.weights -o a.keras",
            "structure='net.txt'",
        ),
        ("", "import net.cfg net.weights -o a.keras", "'net.cfg' does not exist"),
        ("model.keras", "export model.keras --to a.weights", "no 'a.cfg'"),
        ("model.keras", "export model.keras --to net.h5", "--to net.h5"),
        (
            "a.cfg b",
            "import a.cfg b -o a.keras --image-size 32",
            "--image-size must be left out for 'a.cfg'",
        ),
        (
            "a.cfg",
            "export a.keras --to a.weights --structure a.cfg",
            "'a.keras' does not exist",
        ),
    ],
)
def test_a_wrong_name_is_one_line(tmp_path, monkeypatch, there, words, wrong):
    monkeypatch.chdir(tmp_path)
    for name in there.split():
        (tmp_path / name).touch()
    assert wrong in refusal(run(*words.split()))
