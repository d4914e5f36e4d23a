"""Backends that train nothing: import, convert, predict, save and load."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from keras_diagwise.backends import INFERENCE_ONLY
from tests.behaviours import INFERENCE

CODE = """
import sys, pathlib, keras, numpy as np
import keras_diagwise as kd

layers = keras.layers
model = keras.Sequential([
    keras.Input((9, 9, 4)),
    layers.DepthwiseConv2D(3),
    layers.SeparableConv2D(4, 3),
    layers.Conv2D(4, 3, groups=2, padding="same"),
])
images = np.random.default_rng(0).normal(size=(2, 9, 9, 4)).astype("float32")
stock = np.asarray(model.predict(images, verbose=0))
folder = pathlib.Path(sys.argv[1])
for plan in ("auto", "direct"):
    converted = kd.convert(model, plan=plan, copy=True, verbose=1)
    assert [line.layer for line in kd.summary(converted)] == [
        "DiagonalwiseDepthwiseConv2D",
        "DiagonalwiseSeparableConv2D",
        "DiagonalwiseConv2D",
    ]
    assert {str(line.plan) for line in kd.summary(converted)} == {"native"}
    np.testing.assert_array_equal(converted.predict(images, verbose=0), stock)
    converted.save(folder / "ours.keras")
    again = keras.models.load_model(folder / "ours.keras")
    np.testing.assert_array_equal(again.predict(images, verbose=0), stock)
    assert kd.summary(kd.revert(again)) == []
for each in (model, converted):
    each.compile("sgd", "mse")
    try:
        each.fit(images, stock, verbose=0)
    except NotImplementedError:
        pass
    else:
        raise AssertionError("trains")
kernel = np.ones((3, 3, 2, 4), "float32")
for function in (kd.conv, keras.ops.conv):
    print(np.asarray(keras.ops.convert_to_numpy(function(images, kernel))).sum())
report = kd.tune(converted, batch_size=2, verbose=0)
assert not report.rows and len(report.skipped) == 3, report
try:
    kd.tune([kd.summary(converted)[0].problem])
except ValueError as error:
    assert "batch" in str(error) or "KERAS_BACKEND" in str(error)
else:
    raise AssertionError("measured what can't be")
"""


@pytest.mark.parametrize("backend", INFERENCE_ONLY)
def test_what_the_table_says(backend, tmp_path):
    works, trains = (cells[backend] for cells in INFERENCE.values())
    assert trains.neither
    assert not works.neither
    for needed in works.needs:
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"Keras's {backend} backend needs {needed}")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "KERAS_BACKEND": backend, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ours, stock = done.stdout.split()[-2:]
    assert ours == stock


def test_an_unsupported_backend_is_named():
    from keras_diagwise.backends import module_of

    with pytest.raises(ImportError, match="KERAS_BACKEND=mlx"):
        module_of("mlx")
    assert module_of(keras.backend.backend())
