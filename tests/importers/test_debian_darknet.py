"""Debian's package `darknet` computes what the Keras models do: `nox -s darknet`."""

import re
import shutil
import subprocess

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import keras_diagwise
from keras_diagwise.importers import darknet
from tests.importers.darknet_nets import conv, depthwise, net, section
from tests.importers.test_darknet import written

pytestmark = pytest.mark.skipif(
    shutil.which("darknet") is None, reason="needs Debian's package darknet"
)

SIZE = 32
CLASSES = 10
PRINTED = 0.0051
"""Of a probability, in percent: half of the last of two digits, and float32's part."""

MOBILE = (
    net(SIZE)
    + conv(16, 3, "leaky", stride=2)
    + depthwise(16, 3, "leaky")
    + conv(32, 1, "leaky")
    + depthwise(32, 3, "leaky", stride=2)
    + conv(32, 1, "leaky")
    + section("avgpool")
    + conv(CLASSES, batch_normalize=0)
    + section("softmax", groups=1)
)
# Without [batchnorm], which makes this version (of 2018) crash.
LAYERS = (
    net(SIZE)
    + conv(12, 5, "relu", stride=2)
    + section("maxpool", size=3, stride=2)
    + conv(12, 3, "elu", groups=3)
    + section("shortcut", from_=-2, activation="tanh")
    + section("route", layers="-1,-3")
    + conv(8, 2, "selu", stride=2)
    + section("upsample", stride=2)
    + section("dropout", probability=0.5)
    + conv(16, 3, "logistic", batch_normalize=0)
    + section("connected", output=24, activation="leaky", batch_normalize=1)
    + section("connected", output=CLASSES, activation="linear")
    + section("softmax", groups=1, temperature=0.5)
)


def images(count):
    """Scans of digits as large as the networks take them, in whole steps of a byte."""
    digits, labels = load_digits(return_X_y=True)
    pixels = (digits[:count].reshape(-1, 8, 8) * 15).astype("uint8")
    large = pixels.repeat(SIZE // 8, 1).repeat(SIZE // 8, 2)
    return np.stack([large] * 3, -1), labels[:count]


def probabilities_of_darknet(folder, cfg, weights, image):
    """What Darknet prints of an image, in percent."""
    names = "".join(f"class{n}\n" for n in range(CLASSES))
    (folder / "names.txt").write_text(names)
    data = folder / "net.data"
    data.write_text(f"classes={CLASSES}\nnames={folder}/names.txt\ntop={CLASSES}\n")
    Image.fromarray(image).save(folder / "image.png")
    words = ["classifier", "predict", data, cfg, weights, folder / "image.png"]
    done = subprocess.run(
        ["darknet", *map(str, words)], capture_output=True, text=True, check=True
    )
    found = re.findall(r"^ *([\d.]+)%: class(\d)$", done.stdout, re.MULTILINE)
    assert len(found) == CLASSES, done.stdout + done.stderr
    return np.array(
        [float(value) for value, _ in sorted(found, key=lambda each: each[1])]
    )


def difference(folder, cfg, weights, model, count=8):
    """The largest between Darknet's percents and the model's, of several images."""
    batch, _ = images(count)
    ours = 100 * model.predict(batch / 255, verbose=0)
    theirs = [probabilities_of_darknet(folder, cfg, weights, each) for each in batch]
    return np.abs(ours - np.array(theirs)).max()


def with_deviation(model):
    """The model with Debian's batch normalization: 1e-6 added to the deviation, where
    later versions add 1e-5 to the variance."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            deviation = (
                np.sqrt(keras.ops.convert_to_numpy(layer.moving_variance)) + 1e-6
            )
            layer.moving_variance.assign(deviation**2 - layer.epsilon)
    return model


@pytest.mark.parametrize("text", [MOBILE, LAYERS], ids=["mobile", "layers"])
def test_random_classifier(tmp_path, text):
    cfg, weights = written(tmp_path, text)
    model = with_deviation(darknet.load(cfg, weights))
    assert difference(tmp_path, cfg, weights, model) <= PRINTED


def test_trained_classifier(tmp_path):
    """Loaded, converted, trained for 50 steps, and read by Darknet."""
    cfg, weights = written(tmp_path, MOBILE)
    model = keras_diagwise.convert(darknet.load(cfg, weights), verbose=0)
    model.compile(
        keras.optimizers.Adam(0.01),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    pixels, labels = images(1600)
    keras.utils.set_random_seed(0)
    log = model.fit(pixels / 255, labels, batch_size=32, epochs=1, verbose=0)
    assert log.history["accuracy"][-1] > 0.3
    trained = tmp_path / "trained.weights"
    darknet.save(model, cfg, trained)
    assert difference(tmp_path, cfg, trained, with_deviation(model)) <= PRINTED
