"""The command line and its demo, small."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import keras_diagwise
from keras_diagwise_cli import app
from keras_diagwise_cli.commands.demo import loaded_images
from keras_diagwise_cli.demo import image_folder, images, training
from keras_diagwise_cli.errors import UserError
from keras_diagwise_cli.terminal.progress import Progress
from tests.cli.lines import only_line

PIL = pytest.importorskip("PIL.Image")
pytest.importorskip("sklearn")

ROOT = Path(keras_diagwise.__file__).parents[1]
SMALL = ["--image-size", "32", "--batch-size", "4", "--steps", "2", "--seconds", "0.5"]
ESCAPE = "\x1b"


def invoke(*arguments):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def folder(tmp_path):
    """Two classes of six images: dark and bright."""
    random = np.random.default_rng(0)
    for name, low in (("dark", 0), ("bright", 200)):
        (tmp_path / name).mkdir()
        for i in range(6):
            pixels = random.integers(low, low + 50, (40, 50, 3)).astype("uint8")
            PIL.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return tmp_path


@pytest.fixture
def no_training(monkeypatch):
    """Steps that compute nothing."""
    monkeypatch.setattr(training, "train", lambda model, batch: 1.0)
    monkeypatch.setattr(
        training, "predict", lambda model, inputs: np.eye(10)[: len(inputs)]
    )


def test_json_has_every_figure(folder):
    """`--json` prints one document with every figure."""
    options = ["--images", str(folder), "--plan", "native,native,direct", "--json"]
    result = invoke("demo", *SMALL, *options)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    for measured in (report["training_step"], report["prediction"]):
        ratio = measured["stock_ms"] / measured["converted_ms"]
        assert measured["ratio"] == pytest.approx(ratio)
        assert measured["median_of_paired_ratios"] > 0
    assert len(report["training_step"]["pairs_s"]) == 2
    assert report["first_step_s"]["stock"] > 0
    assert report["losses"]["steps"] == len(report["losses"]["pairs"]) == 5
    assert report["losses"]["relative_difference_first"] < 1e-3
    assert 0 <= report["accuracy"]["stock"] <= 1
    assert report["converted_alone"]["steps"] >= 1
    assert report["converted_alone"]["stock_would_need_s"] > 0
    assert len(report["layers"]) == 17
    assert {each["plan"] for each in report["layers"]} == {"native, native, direct"}
    assert not report["runs_native_only"]
    assert report["environment"]["keras_diagwise"] == keras_diagwise.__version__


def test_piped_tables_are_plain_text(folder):
    """Tables fit 80 columns and have no escape codes when piped."""
    command = """
import numpy as np
from keras_diagwise_cli import run
from keras_diagwise_cli.demo import training

training.train = lambda model, batch: 1.0
training.predict = lambda model, inputs: np.eye(10)[: len(inputs)]
run()
"""
    arguments = ["demo", *SMALL, "--plan", "native", "--images", str(folder)]
    result = subprocess.run(
        [sys.executable, "-c", command, *arguments],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    assert ESCAPE not in result.stdout + result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80
    flat = " ".join(result.stdout.split())
    assert "training step, median of 2" in flat
    assert "block_16_depthwise" in flat
    assert "runs the stock operations" in flat
    assert "Next: convert" in flat
    assert f"KERAS_BACKEND={keras.backend.backend()}" in flat


@pytest.mark.usefixtures("no_training")
def test_an_interrupt_ends_with_130(monkeypatch):
    """An interrupted step ends the demo with exit code 130 and no traceback."""

    def interrupted(model, batch):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    result = invoke("demo", *SMALL)
    assert result.exit_code == 130
    assert only_line(result.stderr) == "keras-diagwise: interrupted"
    assert result.stdout == ""


@pytest.mark.usefixtures("no_training")
def test_a_swallowed_interrupt_ends_it_too(monkeypatch):
    """An interrupt that a library swallows ends the demo too."""

    def swallows(model, batch):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return 1.0

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(training, "train", swallows)
    result = invoke("demo", *SMALL)
    assert result.exit_code == 130
    assert only_line(result.stderr) == "keras-diagwise: interrupted"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stepz", "3"], ["--stepz", "demo --help"]),
        (["--image-size", "8"], ["--image-size", "32", "demo --help"]),
        (["--dataset", "cats"], ["--dataset", "digits", "photographs"]),
        (["--model", "ResNet50"], ["--model", "MobileNetV2"]),
        (["--plan", "fastest"], ["--plan", "fastest", "'direct'"]),
        (["--plan", "direct,native"], ["--plan names 2", "kernel_gradient"]),
        (["--plan", "diagonal:4000"], ["--plan", "4000"]),
        (["--images", "/nowhere/at/all"], ["/nowhere/at/all", "subfolder"]),
    ],
)
def test_a_wrong_option_is_one_line(arguments, words):
    """A wrong option is one line with a remedy."""
    result = invoke("demo", *SMALL, *arguments)
    assert result.exit_code == 2, result.output
    line = only_line(result.stderr)
    assert line.startswith("keras-diagwise: ")
    assert all(word in line for word in words), line
    assert result.stdout == ""


def test_an_unknown_command_is_one_line():
    result = invoke("demonstrate")
    assert result.exit_code == 2
    assert "keras-diagwise --help" in only_line(result.stderr)


def test_debug_leaves_the_traceback():
    result = invoke("demo", "--images", "/nowhere/at/all", "--debug")
    assert isinstance(result.exception, UserError)


def test_a_missing_package_has_a_remedy(monkeypatch):
    """A missing package is named, with the command that installs it."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    result = invoke("demo", *SMALL)
    assert result.exit_code == 2
    line = only_line(result.stderr)
    assert "scikit-learn" in line
    assert "pip install 'keras-diagwise[demo]'" in line


def test_version_and_help():
    assert (
        invoke("--version").stdout == f"keras-diagwise {keras_diagwise.__version__}\n"
    )
    for arguments in ([], ["--help"]):
        result = invoke(*arguments)
        assert result.exit_code == 0
        assert "keras-diagwise demo" in result.stdout
    help_of_demo = invoke("demo", "--help").stdout
    assert "--batch-size" in help_of_demo
    assert "keras-diagwise demo --images" in help_of_demo


def test_a_folder_is_split_reproducibly(folder):
    one, two = (image_folder.from_folder(folder, 32, seed=3) for _ in range(2))
    assert one.classes == ("bright", "dark")
    for part, count in (("training", 10), ("held out", 2)):
        assert one.pixels[part].shape == (count, 32, 32, 3)
        np.testing.assert_array_equal(one.pixels[part], two.pixels[part])
        is_bright = one.pixels[part].mean(axis=(1, 2, 3)) > 128
        np.testing.assert_array_equal(one.labels[part], 1 - is_bright)


def test_training_and_held_out_are_disjoint():
    loaded = images.digits(32, seed=0)
    total = sum(len(each) for each in loaded.labels.values())
    assert total == 1797
    parts = images.split(np.repeat([0, 1, 2], 20), seed=1)
    together = np.sort(np.concatenate(list(parts.values())))
    np.testing.assert_array_equal(together, np.arange(60))


def test_photograph_crops_are_balanced():
    """Each photograph gives the same number of crops."""
    loaded = images.photographs(32, seed=0)
    assert loaded.classes == ("china", "flower")
    for part, count in images.CROPS.items():
        assert np.bincount(loaded.labels[part]).tolist() == [count, count]


def test_an_epoch_has_every_image_once():
    """Every image is trained on before any comes again."""
    loaded = images.digits(8, seed=0)
    batches = loaded.training_batches(500, seed=0)
    labels = np.concatenate([next(batches)[1] for _ in range(4)])
    count = len(loaded.labels["training"])
    expected = np.bincount(loaded.labels["training"])
    np.testing.assert_array_equal(np.bincount(labels[:count]), expected)


def spoil_all(folder):
    for path in list(folder.rglob("*.png")):
        path.unlink()


def spoil_a_class(folder):
    for path in list((folder / "dark").iterdir()):
        path.unlink()


def spoil_all_but_one(folder):
    for path in sorted((folder / "dark").iterdir())[1:]:
        path.unlink()


def spoil_a_file(folder):
    (folder / "dark" / "2.png").write_bytes(b"no image")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_all, "no subfolder of .* contains an image"),
        (spoil_a_class, "only one class.*at least two"),
        (spoil_all_but_one, "only one image of dark.*at least two"),
        (spoil_a_file, r"can't read .*2\.png as an image.*[Rr]emove"),
    ],
)
def test_an_unusable_folder_says_why(folder, spoil, words):
    spoil(folder)
    with pytest.raises(UserError, match=words):
        image_folder.from_folder(folder, 32, seed=0)


def test_batch_larger_than_folder_is_refused(folder):
    with pytest.raises(UserError, match="smaller --batch-size"):
        loaded_images("digits", folder, 32, seed=0, batch_size=16)


@pytest.fixture
def batches(folder):
    return images.Batches(image_folder.from_folder(folder, 32, seed=0), 4, seed=0)


def trained_on(monkeypatch, batches, steps):
    """The steps of both models, in their order: each model and its batch."""
    seen = []

    def train(model, batch):
        seen.append((model, batch[0].tobytes()))
        return 1.0

    monkeypatch.setattr(training, "train", train)
    models = {"stock": "stock", "converted": "converted"}
    with Progress() as progress:
        timed, losses = training.timed_training(models, batches, steps, progress)
    assert losses == dict.fromkeys(models, [1.0] * (len(seen) // 2))
    assert timed.steps.rounds == len(timed.samples["stock"])
    return seen


def test_both_train_on_the_same_batches(monkeypatch, batches):
    """Both models train on the same batches, each of them first now and then."""
    seen = trained_on(monkeypatch, batches, 20)
    stock, converted = (
        [batch for name, batch in seen if name == model]
        for model in ("stock", "converted")
    )
    assert stock == converted
    assert len(set(stock)) > 10
    assert {name for name, _ in seen[6::2]} == {"stock", "converted"}


def test_pairs_stop_at_the_time_limit(monkeypatch, batches):
    """Pairs end when their time is over, but not before the fewest are done."""
    first_and_warm_up = 3
    for steps, seconds, pairs in ((30, 0.0, 5), (2, 0.0, 2), (30, 100.0, 30)):
        monkeypatch.setattr(training, "TRAINING_SECONDS", seconds)
        seen = trained_on(monkeypatch, batches, steps)
        assert len(seen) == 2 * (pairs + first_and_warm_up)
