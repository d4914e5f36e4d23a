"""A few minutes with the package as it is installed: `nox -s package` runs this from
outside the checkout, in an environment that has nothing but what pip put there."""

import importlib.util
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

BACKENDS = {"jax", "tensorflow", "torch"}
DATA = (
    "py.typed",
    "planning/shipped/cpu-jax-xla.json",
    "planning/shipped/cpu-tensorflow-xla.json",
)
PAGE = ("report/page.html", "report/page.css", "report/page.js")


def installed():
    """The packages are the installed ones, whole, and nothing of the checkout is
    seen."""
    import keras_diagwise
    import keras_diagwise_cli

    for package, data in ((keras_diagwise, DATA), (keras_diagwise_cli, PAGE)):
        folder = Path(package.__file__).parent
        assert folder.parent == Path(sysconfig.get_paths()["purelib"]), folder
        for name in data:
            assert (folder / name).is_file(), name
    for name in ("tests", "tuning"):
        assert importlib.util.find_spec(name) is None, name


def one_backend():
    """Only the backend that was asked for is there, and it is the active one."""
    import keras

    found = {name for name in BACKENDS if importlib.util.find_spec(name)}
    assert found == {keras.backend.backend()}, found


def models():
    """A stock model, and its converted copy by a plan that is not native."""
    import keras

    import keras_diagwise

    keras.utils.set_random_seed(0)
    stock = keras.Sequential(
        [
            keras.Input((12, 12, 8)),
            keras.layers.DepthwiseConv2D(3, padding="same"),
            keras.layers.Conv2D(8, 3, groups=4),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )
    stock.compile("sgd", "mse")
    return stock, keras_diagwise.convert(stock, plan="direct", copy=True, verbose=0)


def trains_as_stock(stock, converted):
    """A training step of both gives the same loss and the same weights."""
    import numpy as np

    inputs = np.random.default_rng(0).standard_normal((4, 12, 12, 8)).astype("float32")
    outputs = np.ones((4, 2), "float32")
    losses = [float(m.train_on_batch(inputs, outputs)) for m in (stock, converted)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for one, other in zip(stock.get_weights(), converted.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def command(*arguments):
    """What a command prints; it must end well."""
    script = Path(sys.executable).parent / "keras-diagwise"
    done = subprocess.run(
        [script, *arguments], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout


def main():
    installed()
    one_backend()
    stock, converted = models()
    trains_as_stock(stock, converted)
    with tempfile.TemporaryDirectory() as folder:
        file, page = Path(folder) / "model.keras", Path(folder) / "report.html"
        converted.save(file)
        assert "keras-diagwise tune" in command("--help")
        assert "Written to" in command("report", str(file), "-o", str(page))
        assert "</html>" in page.read_text(encoding="utf-8")
    print(command("doctor"))
    print(
        f"keras-diagwise works as it is installed, on Python {sys.version.split()[0]}"
    )


if __name__ == "__main__":
    main()
