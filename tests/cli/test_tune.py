"""`keras-diagwise tune`: what it prints, what it refuses, and how it ends."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import keras
import pytest
from typer.testing import CliRunner

import keras_diagwise as kd
from keras_diagwise.models import shared_check
from keras_diagwise.models.report import ModelCheck
from keras_diagwise.problem import PASSES
from keras_diagwise.storage.document import Document
from keras_diagwise.storage.store import Store
from keras_diagwise_cli import app
from tests.cli.lines import refusal
from tests.fake_runner import FakeRunner

pytestmark = pytest.mark.usefixtures("nothing_known", "runner")

ROOT = Path(kd.__file__).parents[1]
ESCAPE = "\x1b"
SHAPE = (8, 8, 4)


@pytest.fixture(autouse=True)
def checked(monkeypatch):
    """The whole model's step, not timed: what it overrules is another test's."""
    check = ModelCheck(0.2, 0.1, 2.0), []
    monkeypatch.setattr(shared_check, "check_step", lambda *_, **__: check)


@pytest.fixture(autouse=True)
def policy():
    """The dtype policy, as it was."""
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture
def file(tmp_path):
    """A model of two depthwise layers, compiled."""
    inputs = keras.Input(SHAPE)
    first = keras.layers.DepthwiseConv2D(3, padding="same", name="first")
    second = keras.layers.DepthwiseConv2D(3, strides=2, name="second")
    model = keras.Model(inputs, second(first(inputs)))
    model.compile("sgd", "mse")
    model.save(tmp_path / "model.keras")
    return str(tmp_path / "model.keras")


def invoke(*arguments, width=80):
    return CliRunner().invoke(app, ["tune", *arguments], env={"COLUMNS": str(width)})


def printed(*arguments, **keywords):
    result = invoke(*arguments, **keywords)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments):
    """The one line that the command ends with."""
    return refusal(invoke(*arguments))


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_has_each_layer_and_pass(file, width):
    output = printed(file, "--batch-size", "2", width=width)
    for name in ("first", "second"):
        assert output.count(name) == 1
    for name in ("forward", "input gradient", "kernel gradient"):
        assert output.count(f"{name} ") == 3
    assert output.count("direct") >= 6
    assert output.count("10.0×") == 9
    assert "6 passes measured, 0 known before" in " ".join(output.split())
    assert max(map(len, output.splitlines())) <= width
    assert ESCAPE not in output


def test_json_has_the_reports_fields(file, store):
    """`--json` prints one document with the report's fields."""
    values = json.loads(printed(file, "--batch-size", "2", "--json"))
    assert [each["layers"] for each in values["rows"]] == [["first"]] * 3 + [
        ["second"]
    ] * 3
    for each in values["rows"]:
        assert each["winner"] == "direct"
        assert (each["seconds"], each["native_seconds"]) == (0.1, 1.0)
        assert each["least"] > 0
        assert each["outcomes"]["native"]["seconds"] == 1.0
    assert set(values["totals"]) == set(PASSES)
    assert (values["ended"], values["measured"]) == (None, 6)
    assert values["model"]["speedup"] == 2.0
    assert len(store.document()) == 2


def test_what_is_known_is_not_measured_again(file, runner):
    printed(file, "--batch-size", "2")
    runner.asked.clear()
    assert "0 passes measured, 6 known before" in printed(file, "--batch-size", "2")
    assert not runner.asked


def test_inference_decides_the_forward_pass(file, runner):
    """`--inference` decides the forward pass alone, for each batch size."""
    options = ["--batch-size", "2", "--batch-size", "3", "--inference", "--json"]
    rows = json.loads(printed(file, *options))["rows"]
    assert [each["pass"] for each in rows] == ["forward"] * 4
    assert [each["problem"]["batch"] for each in rows] == [2, 2, 3, 3]


def test_the_compiler_mode_is_as_asked_for(file, store):
    printed(file, "--batch-size", "2", "--inference", "--no-jit-compile")
    (environment,) = store.environments()
    assert environment.compiler_mode in ("graph", "eager", "xla")
    assert environment.compiler_mode != "inductor"


def test_dtype_and_image_size_are_obeyed(monkeypatch):
    """An application has the dtype policy and the image size of the options."""
    given = []

    def remember(model, **arguments):
        given.append((model, arguments))
        raise ValueError("enough")

    def small(weights, input_shape, include_top):
        inputs = keras.Input(input_shape)
        return keras.Model(inputs, keras.layers.DepthwiseConv2D(3)(inputs))

    monkeypatch.setattr(sys.modules["keras_diagwise.models.tune"], "measure", remember)
    monkeypatch.setattr(keras.applications, "MobileNet", small)
    options = ["--image-size", "32", "--dtype-policy", "mixed_bfloat16"]
    refused("MobileNet", "--batch-size", "2", *options, "--budget", "5m")
    ((model, arguments),) = given
    assert model.input_shape == (None, 32, 32, 3)
    assert model.layers[1].compute_dtype == "bfloat16"
    assert arguments["batch_size"] == [2]
    assert arguments["budget"] == "5m"


def test_a_spent_budget_keeps_the_results(file, monkeypatch, store):
    """A spent budget ends tuning, and the results so far are printed."""
    examine = FakeRunner.examine

    def spend(self, task, *arguments):
        if task.pass_name == "kernel_gradient":
            raise_budget_spent()
        return examine(self, task, *arguments)

    monkeypatch.setattr(FakeRunner, "examine", spend)
    options = ["--batch-size", "2", "--budget", "1h"]
    output = " ".join(printed(file, *options).split())
    assert "The budget is spent. Not decided yet: 4 passes" in output
    assert "2 passes measured" in output
    values = json.loads(printed(file, *options, "--json"))
    assert (values["ended"], len(values["rows"])) == ("budget", 2)


def raise_budget_spent():
    from keras_diagwise.tuner.runner import BudgetSpentError

    raise BudgetSpentError


def test_ctrl_c_prints_the_results_so_far(file, monkeypatch, store):
    """Ctrl-C prints the results so far and ends with exit code 130."""
    examine = FakeRunner.examine

    def interrupt(self, task, *arguments):
        if task.pass_name == "kernel_gradient":
            raise KeyboardInterrupt
        return examine(self, task, *arguments)

    monkeypatch.setattr(FakeRunner, "examine", interrupt)
    result = invoke(file, "--batch-size", "2")
    assert result.exit_code == 130
    output = " ".join(result.stdout.split())
    assert "same, float32 first pass" in output
    assert "input gradient direct" in output
    assert "Interrupted. Not decided yet: 4 passes." in output
    assert result.stderr.splitlines()[-1] == "keras-diagwise: interrupted"
    assert "Traceback" not in result.output
    assert len(store.document()) == 1
    result = invoke(file, "--batch-size", "2", "--json")
    assert result.exit_code == 130
    values = json.loads(result.stdout)
    assert (values["ended"], len(values["rows"])) == ("interrupted", 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["MobileNetV9", "--batch-size", "2"], ["MobileNetV9", "MobileNetV2"]),
        (["nothing.keras", "--batch-size", "2"], ["nothing.keras", "does not exist"]),
        (["MobileNet"], ["--batch-size", "tune --help"]),
        (["MobileNet", "--batch-size", "0"], ["--batch-size", "tune --help"]),
        (["MobileNet", "--batch-size", "two"], ["--batch-size", "integer"]),
        (
            ["MobileNet", "--batch-size", "2", "--image-size", "3"],
            ["--image-size must suit MobileNet", "Received: 3"],
        ),
        (
            ["MobileNet", "--batch-size", "2", "--dtype-policy", "float7"],
            ["float7"],
        ),
        (
            ["x.keras", "--batch-size", "2", "--dtype-policy", "mixed_float16"],
            ["--dtype-policy", "mixed_float16"],
        ),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, words, tmp_path, monkeypatch):
    """A wrong argument is one line with a remedy."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.keras").touch()
    line = refused(*arguments)
    assert all(word in line for word in words), line


def test_a_wrong_budget_is_one_line(file):
    """A wrong budget is one line with a remedy."""
    line = refused(file, "--batch-size", "2", "--budget", "soon")
    assert "'30s'" in line
    assert "'soon'" in line


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "damaged.keras").write_bytes(b"PK\x03\x04 and so on")
    line = refused(str(tmp_path / "damaged.keras"), "--batch-size", "2")
    assert "damaged.keras" in line


def test_debug_leaves_the_traceback():
    result = invoke("MobileNetV9", "--batch-size", "2", "--debug")
    assert isinstance(result.exception.__cause__, ValueError)


def read_all(terminal, shown):
    """Reads until nobody can write any more, which Linux says by an error."""
    with contextlib.suppress(OSError):
        while content := os.read(terminal, 4096):
            shown.append(content)


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_bar_is_on_a_terminal_alone(file, tmp_path, is_terminal):
    """The progress bar is on a terminal alone, and everything is measured.

    This runs the whole command in its own process.
    """
    import pty

    terminal, theirs = pty.openpty()
    shown = []
    reader = threading.Thread(target=read_all, args=(terminal, shown))
    reader.start()
    command = "from keras_diagwise_cli import run; run()"
    options = ["--batch-size", "2", "--inference"]
    done = subprocess.run(
        [sys.executable, "-c", command, "tune", file, *options],
        stdout=subprocess.PIPE,
        stderr=theirs if is_terminal else subprocess.PIPE,
        encoding="utf-8",
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUTF8": "1",
            "TERM": "xterm",
            "KERAS_DIAGWISE_STORE": str(tmp_path / "real"),
        },
        timeout=600,
        check=False,
    )
    os.close(theirs)
    reader.join()
    os.close(terminal)
    said = b"".join(shown).decode() if is_terminal else done.stderr
    assert done.returncode == 0, said
    assert ("/2" in said) == is_terminal
    assert (ESCAPE in said) == is_terminal
    assert ESCAPE not in done.stdout
    assert "2 passes measured, 0 known before" in done.stdout
    document = Store(tmp_path / "real").document()
    assert len(document) == 2
    for environment, decision in document:
        assert environment.backend == keras.backend.backend()
        assert decision.passes["forward"].seconds["native"] > 0
        assert Document.from_text(Document.of(environment, [decision]).to_text())


@pytest.mark.usefixtures("no_dense")
def test_nothing_to_measure_is_no_warning(tmp_path, recwarn):
    """A model with nothing to measure causes no Python warning."""
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(2, 3)])
    model.save(tmp_path / "dense.keras")
    words = ["tune", str(tmp_path / "dense.keras"), "--batch-size", "2"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "There was nothing to measure" in result.stdout
    assert not [each for each in recwarn if "nothing to measure" in str(each.message)]
