"""`keras-diagwise benchmark`: what it times, what it prints, and what it refuses."""

import json

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_diagwise.models import benchmark
from keras_diagwise.models.benchmark import relative_difference
from keras_diagwise_cli import app
from keras_diagwise_cli.terminal.output import print_json
from tests.cli.test_report import measure_all, small_model
from tests.fake_runner import traced_plans

pytestmark = pytest.mark.usefixtures("nothing_known")


@pytest.fixture
def file(tmp_path, store):
    """A model of two layers, of which the first runs direct by what was measured."""
    model = small_model("first")
    measure_all(store, model)
    model.save(tmp_path / "model.keras")
    return str(tmp_path / "model.keras")


def invoke(*arguments):
    words = ["benchmark", *arguments]
    return CliRunner().invoke(app, words, env={"COLUMNS": "80"})


def printed(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.usefixtures("no_dense")
def test_both_models_are_timed(file, monkeypatch):
    """Both models are timed, with the batch size and plans that were measured."""
    seen = traced_plans(monkeypatch)
    found = json.loads(printed(file, "--seconds", "0", "--json"))
    assert (found["batch_size"], found["batch_size_is"]) == (2, "measured")
    for kind in ("training", "prediction"):
        times = found[kind]
        assert times["rounds"] >= 5
        assert times["at_least"] <= times["ratio"] <= times["at_most"]
        for name in ("stock", "converted", "first_stock", "first_converted"):
            assert times[name] > 0
    assert 0 <= found["difference"] < 1e-4
    (layer,) = found["layers"]
    assert (layer["plan"], layer["rung"]) == ("direct", "decision")
    assert not found["runs_native_only"]
    assert set(seen) == {"direct"}


def test_the_table_fits_80_columns(file):
    output = printed(file, "--seconds", "0")
    assert "batches of 2" in output
    assert "plans: decision (1)" in output
    assert max(map(len, output.splitlines())) <= 80
    assert "\x1b" not in output


def test_predictions_may_differ_in_any_way():
    """A NaN is no agreement; the same NaN in both is."""
    one = [np.array([3.0, 4.0, np.nan, np.inf]), np.array([1.0])]
    assert relative_difference(one, one) == 0.0
    near = [np.array([3.0, 4.0 + np.sqrt(12.5), np.nan, np.inf]), np.array([1.0])]
    assert relative_difference(one, near) == pytest.approx(1.0)
    for wrong in (np.nan, np.inf):
        other = [one[0], np.array([wrong])]
        found = relative_difference(one, other)
        assert np.isnan(found) if np.isnan(wrong) else np.isinf(found)


def test_a_difference_without_end_is_said(file, monkeypatch):
    """Predictions that hold NaN differ: in words, and as JSON's null."""
    monkeypatch.setattr(benchmark, "relative_difference", lambda *_: np.nan)
    assert json.loads(printed(file, "--seconds", "0", "--json"))["difference"] is None
    words = " ".join(printed(file, "--seconds", "0").split())
    assert "one model's hold NaN or infinite numbers" in words


def test_any_text_is_json(capsys):
    """A path of bytes that are no text is printed as Python's JSON does."""
    print_json({"path": "/data/\udcff", "times": (1.5, float("inf")), "é": None})
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"path": "/data/\udcff", "times": [1.5, None], "é": None}


@pytest.mark.parametrize("seconds", ["nan", "inf"])
@pytest.mark.parametrize("command", ["benchmark", "demo"])
def test_seconds_are_finite(command, seconds):
    words = [command, *["MobileNet"][: command == "benchmark"], "--seconds", seconds]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, result.output
    assert "Invalid value for '--seconds'" in " ".join(result.stderr.split())


def test_it_says_when_nothing_but_stock_runs(tmp_path):
    small_model("first").save(tmp_path / "new.keras")
    options = ["--seconds", "0", "--batch-size", "3"]
    output = " ".join(printed(str(tmp_path / "new.keras"), *options).split())
    assert "keras-diagwise tune" in output
    assert "batches of 3" in output


def test_what_cant_be_is_one_line(tmp_path):
    inputs = keras.Input((None, None, 4))
    model = keras.Model(inputs, keras.layers.DepthwiseConv2D(3)(inputs))
    model.save(tmp_path / "unknown.keras")
    for arguments, words in (
        ([str(tmp_path / "unknown.keras")], "keras.Input"),
        (["nothing.keras"], "does not exist"),
        (["MobileNet", "--batch-size", "0"], "benchmark --help"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2, result.output
        lines = [each for each in result.stderr.splitlines() if not each.endswith("…")]
        (line,) = lines
        assert words in line
        assert result.stdout == ""


def test_inputs_are_given_by_their_names(tmp_path, recwarn):
    one, other = keras.Input((6, 6, 2), name="one"), keras.Input((8, 8, 2), name="two")
    layer = keras.layers.DepthwiseConv2D(3)
    outputs = {"a": layer(one), "b": keras.layers.DepthwiseConv2D(3)(other)}
    keras.Model({"one": one, "two": other}, outputs).save(tmp_path / "named.keras")
    printed(str(tmp_path / "named.keras"), "--seconds", "0", "--batch-size", "2")
    assert not [each for each in recwarn if "structure" in str(each.message)]
