"""Files, copies and exported artefacts of converted models.

python -m tests.models.test_files      writes data/from_<backend>.keras anew
"""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_diagwise as kd
from keras_diagwise.convolution import conductor
from keras_diagwise.layers.family import Diagonalwise
from keras_diagwise.planning.planner import Answer
from keras_diagwise.planning.store import Store
from tests.strategies import to_numpy

BACKEND = keras.backend.backend()
BACKENDS = ("jax", "tensorflow", "torch")
DATA = Path(__file__).with_name("data")
SHAPE = (9, 9, 4)
layers = keras.layers


@pytest.fixture(autouse=True)
def own_store(monkeypatch, tmp_path):
    """Not the user's, where anything may have been tuned."""
    monkeypatch.setattr(conductor.planner, "store", Store(tmp_path / "store"))
    conductor.forget()
    yield
    conductor.forget()


def images(size=2):
    return np.random.default_rng(size).normal(size=(size, *SHAPE)).astype("float32")


def stock_model():
    inputs = keras.Input(SHAPE)
    x = layers.DepthwiseConv2D(3, padding="same")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.SeparableConv2D(6, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2D(6, 3, groups=3, padding="same")(x)
    x = layers.Conv2D(6, 3, groups=6, padding="same")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def converted_model(plan="direct"):
    keras.utils.set_random_seed(0)
    model = stock_model()
    model.compile("adam", "mse")
    model.train_on_batch(images(), np.ones((2, 3)))
    return kd.convert(model, plan=plan, verbose=0)


def ours_in(model):
    return [layer for layer in model.layers if isinstance(layer, Diagonalwise)]


def outputs_of(model, inputs=None):
    return to_numpy(model(images() if inputs is None else inputs))


def run(code, *arguments):
    """Python code in a process of its own, from a folder without the package."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=Path(arguments[0]),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_that_only_imports_the_package_loads_a_file(tmp_path):
    model = converted_model()
    model.save(tmp_path / "ours.keras")
    np.save(tmp_path / "inputs.npy", images())
    code = """
import sys, pathlib, keras_diagwise, keras, numpy as np
folder = pathlib.Path(sys.argv[1])
model = keras.models.load_model(folder / "ours.keras")
print(*{type(layer).__qualname__ for layer in model.layers})
inputs = np.load(folder / "inputs.npy")
np.save(folder / "outputs.npy", model.predict(inputs, verbose=0))
"""
    assert "DiagonalwiseConv2D" in run(code, tmp_path)
    found = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(found, outputs_of(model), atol=1e-5)


COPIES = {
    "clone_model": lambda model: keras.models.clone_model(model),
    "from_config": lambda model: type(model).from_config(model.get_config()),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_what_they_are_in_stock(name):
    model = converted_model()
    again = COPIES[name](model)
    stock = COPIES[name](kd.revert(model))
    assert [layer.plan for layer in ours_in(again)] == [
        layer.plan for layer in ours_in(model)
    ]
    assert len(ours_in(again)) == 4
    assert [layer.name for layer in again.layers] == [s.name for s in stock.layers]
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(outputs_of(again), outputs_of(model))


@pytest.mark.parametrize("saved_by", BACKENDS)
def test_a_file_of_any_backend_loads(saved_by):
    """Each was saved there, converted, with what it gave for the inputs.

    An optimizer that torch has its own class for loads under torch only: stock Keras
    writes that class into the file (seen in 3.15).
    """
    with_optimizer = saved_by in (BACKEND, "jax")
    path = DATA / f"from_{saved_by}.keras"
    model = keras.models.load_model(path, compile=with_optimizer)
    with np.load(DATA / f"from_{saved_by}.npz") as known:
        found = outputs_of(model, known["inputs"])
        np.testing.assert_allclose(found, known["outputs"], rtol=1e-4, atol=1e-5)
    assert [str(layer.plan) for layer in ours_in(model)] == ["direct"] * 4
    if with_optimizer:
        assert int(model.optimizer.iterations) == 1
        model.train_on_batch(images(), np.ones((2, 3)))
    assert not ours_in(kd.revert(model))


@pytest.mark.parametrize("plan", ["auto", "direct"])
@pytest.mark.skipif(BACKEND == "torch", reason="Keras exports no SavedModel of torch's")
def test_an_exported_saved_model_runs_without_the_package(tmp_path, plan):
    pytest.importorskip("tensorflow", reason="a SavedModel is TensorFlow's")
    model = converted_model(plan)
    expected = outputs_of(model)
    outputs_of(model)
    model.export(tmp_path / "artefact", verbose=False)
    np.save(tmp_path / "inputs.npy", images())
    code = """
import sys, pathlib, numpy as np, tensorflow as tf
folder = pathlib.Path(sys.argv[1])
served = tf.saved_model.load(str(folder / "artefact"))
outputs = np.asarray(served.serve(tf.constant(np.load(folder / "inputs.npy"))))
assert "keras_diagwise" not in sys.modules
np.save(folder / "outputs.npy", outputs)
"""
    run(code, tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), expected, atol=1e-5)
    np.testing.assert_allclose(outputs_of(model), expected, atol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow")
@pytest.mark.parametrize(
    ("plan", "is_native"), [("auto", True), ("native", True), ("direct", False)]
)
def test_what_is_exported_is_native_unless_asked(
    tmp_path, monkeypatch, plan, is_native
):
    """Also where a decision for this device says otherwise."""
    import tensorflow as tf

    from keras_diagwise.convolution import Conductor

    monkeypatch.setattr(
        Conductor,
        "answer",
        lambda self, problem, plan, environment=None, answer=Conductor.answer: (
            answer(self, problem, plan, environment)
            if plan != "auto" or tf.executing_eagerly() or exporting()
            else Answer(kd.Plan("direct", "direct", "direct"), "decision")
        ),
    )
    from keras_diagwise.backends.keras_internals import is_exporting as exporting

    model = converted_model(plan)
    model.predict(images(), verbose=0)
    model.export(tmp_path / "artefact", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "artefact"))
    graph = served.signatures["serving_default"].graph.as_graph_def()
    operations = {node.op for node in graph.node}
    operations |= {n.op for f in graph.library.function for n in f.node_def}
    assert ("DepthwiseConv2dNative" in operations) == is_native


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TFLite is TensorFlow's")
@pytest.mark.parametrize("plan", ["auto", "direct"])
def test_a_tflite_model_runs(tmp_path, plan):
    import tensorflow as tf

    model = converted_model(plan)
    path = tmp_path / "artefact.tflite"
    model.export(path, format="litert", verbose=False)
    interpreter = tf.lite.Interpreter(str(path))
    runner = interpreter.get_signature_runner()
    (name,) = runner.get_input_details()
    (found,) = runner(**{name: images(1)}).values()
    np.testing.assert_allclose(found, outputs_of(model, images(1)), atol=1e-5)


@pytest.mark.skipif(BACKEND == "jax", reason="needs TensorFlow beside JAX")
@pytest.mark.parametrize("plan", ["auto", "direct"])
def test_an_onnx_model_runs(tmp_path, plan):
    for module in ("onnx", "onnxruntime"):
        pytest.importorskip(module)
    import onnxruntime

    model = converted_model(plan)
    path = tmp_path / "artefact.onnx"
    model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(str(path))
    found = session.run(None, {session.get_inputs()[0].name: images(1)})[0]
    np.testing.assert_allclose(found, outputs_of(model, images(1)), atol=1e-5)


@pytest.mark.skipif(BACKEND != "torch", reason="about torch")
@pytest.mark.parametrize("plan", ["auto", "direct"])
def test_an_exported_torch_program_runs_without_the_package(tmp_path, plan):
    model = converted_model(plan)
    model.export(tmp_path / "artefact.pt2", format="torch", verbose=False)
    np.save(tmp_path / "inputs.npy", images(1))
    code = """
import sys, pathlib, numpy as np, torch
folder = pathlib.Path(sys.argv[1])
program = torch.export.load(folder / "artefact.pt2").module()
outputs = program(torch.from_numpy(np.load(folder / "inputs.npy")))
assert "keras_diagwise" not in sys.modules
np.save(folder / "outputs.npy", outputs.detach().numpy())
"""
    run(code, tmp_path)
    found = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(found, outputs_of(model, images(1)), atol=1e-5)


@pytest.mark.skipif(BACKEND != "jax", reason="about JAX")
@pytest.mark.parametrize("is_of_this_device", [True, False])
def test_jax_exports_native_unless_asked(is_of_this_device):
    import jax

    from keras_diagwise import backends
    from keras_diagwise.convolution import Convolution, depthwise_problem

    problem = depthwise_problem(
        (2, *SHAPE), "float32", (3, 3, 4, 1), 1, "same", "channels_last", 1
    )
    plan = kd.Plan("direct", "direct", "direct")
    convolution = Convolution(problem, plan, is_of_this_device)

    def loss(x, k):
        return (backends.active.differentiable(convolution, x, k) ** 2).sum()

    kernel = np.ones(problem.kernel_shape, "float32")
    function = jax.jit(jax.grad(loss, (0, 1)))
    assert "convolution" not in function.lower(images(), kernel).as_text()
    exported = jax.export.export(function)(images(), kernel)
    text = exported.mlir_module()
    assert ("stablehlo.convolution" in text) == is_of_this_device
    for one, other in zip(
        exported.call(images(), kernel), function(images(), kernel), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def write_data() -> None:
    model = converted_model()
    model.save(DATA / f"from_{BACKEND}.keras")
    np.savez(DATA / f"from_{BACKEND}.npz", inputs=images(), outputs=outputs_of(model))


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    write_data()
