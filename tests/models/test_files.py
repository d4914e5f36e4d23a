"""Files, copies and exported artefacts of converted models.

python -m tests.models.test_files      writes data/from_<backend>.keras anew
"""

import copy
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_diagwise as kd
from keras_diagwise.backends import keras_internals
from keras_diagwise.layers.base import Diagonalwise
from keras_diagwise.models.load import load
from keras_diagwise.planning.planner import Answer
from tests.behaviours import FILES
from tests.strategies import to_numpy

pytestmark = pytest.mark.usefixtures("store")

BACKEND = keras.backend.backend()
NAMES = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "torch"}
DATA = Path(__file__).with_name("data")
SHAPE = (9, 9, 4)
layers = keras.layers


def images(size=2):
    return np.random.default_rng(size).normal(size=(size, *SHAPE)).astype("float32")


def stock_model(grouped=True):
    inputs = keras.Input(SHAPE)
    x = layers.DepthwiseConv2D(3, padding="same")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.SeparableConv2D(6, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2D(6, 3, groups=3, padding="same")(x) if grouped else x
    x = layers.Conv2D(6, 3, groups=6, padding="same")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def converted_model(plan="direct", grouped=True):
    keras.utils.set_random_seed(0)
    model = stock_model(grouped)
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


LOADED = """
import sys, pathlib, keras_diagwise, keras, numpy as np
folder = pathlib.Path(sys.argv[1])
model = keras.models.load_model(folder / "any.keras")
outputs = model.predict(np.load(folder / "inputs.npy"), verbose=0)
np.save(folder / "outputs.npy", outputs)
"""

SERVED = """
import sys, pathlib, numpy as np, tensorflow as tf
folder = pathlib.Path(sys.argv[1])
served = tf.saved_model.load(str(folder / "artefact"))
outputs = served.serve(tf.constant(np.load(folder / "inputs.npy")))
assert "keras_diagwise" not in sys.modules
np.save(folder / "outputs.npy", np.asarray(outputs))
"""

PROGRAM = """
import sys, pathlib, numpy as np, torch
folder = pathlib.Path(sys.argv[1])
program = torch.export.load(folder / "artefact.pt2").module()
outputs = program(torch.from_numpy(np.load(folder / "inputs.npy")))
assert "keras_diagwise" not in sys.modules
np.save(folder / "outputs.npy", outputs.detach().numpy())
"""


def elsewhere(code, folder):
    """What a process of its own makes of the images."""
    np.save(folder / "inputs.npy", images(1))
    run(code, folder)
    return np.load(folder / "outputs.npy")


def keras_file(model, folder):
    model.save(folder / "any.keras")
    return elsewhere(LOADED, folder)


def weights(of, to):
    """`of`'s weights, by a file, in a model like `to`."""

    def outputs(model, folder):
        of(model).save_weights(folder / "any.weights.h5")
        other = keras.models.clone_model(to(model))
        other.load_weights(folder / "any.weights.h5")
        return outputs_of(other, images(1))

    return outputs


def copied(copies):
    """The model that a function makes of one, with the same weights and plans."""

    def outputs(model, folder):
        again = copies(model)
        # `clone_model` names inputs anew (seen in Keras 3.15).
        assert [plan_of(layer) for layer in again.layers[1:]] == [
            plan_of(layer) for layer in model.layers[1:]
        ]
        again.set_weights(model.get_weights())
        return outputs_of(again, images(1))

    return outputs


def plan_of(layer):
    return layer.name, type(layer), getattr(layer, "plan", None)


def saved_model(model, folder):
    model.export(folder / "artefact", verbose=False)
    return elsewhere(SERVED, folder)


def tflite(model, folder):
    path = folder / "artefact.tflite"
    model.export(str(path), format="litert", verbose=False)  # Keras 3.14 takes no Path
    if BACKEND == "torch":
        from ai_edge_litert import interpreter as litert
    else:
        from tensorflow import lite as litert
    runner = litert.Interpreter(str(path)).get_signature_runner()
    (name,) = runner.get_input_details()
    (outputs,) = runner(**{name: images(1)}).values()
    return outputs


def onnx(model, folder):
    import onnxruntime

    path = folder / "artefact.onnx"
    model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {session.get_inputs()[0].name: images(1)})[0]


def torch_program(model, folder):
    model.export(folder / "artefact.pt2", format="torch", verbose=False)
    return elsewhere(PROGRAM, folder)


def same(model):
    return model


WITH_OPTIMIZER = ", with its optimizer"


def file_of(saved_by, end=""):
    """The row of the table."""
    return f"`.keras` of {NAMES[saved_by]}{end}"


def stock_of(model):
    return kd.revert(model, copy=True)


OUTPUTS = {
    "`.keras`, where only `keras_diagwise` was imported": keras_file,
    "`.weights.h5` of stock": weights(stock_of, same),
    "`.weights.h5` for stock": weights(same, stock_of),
    "`clone_model`": copied(keras.models.clone_model),
    "`from_config`": copied(lambda model: type(model).from_config(model.get_config())),
    "`copy.copy`": copied(copy.copy),
    "`copy.deepcopy`": copied(copy.deepcopy),
    "`pickle`": copied(lambda model: pickle.loads(pickle.dumps(model))),
    "SavedModel": saved_model,
    "TFLite": tflite,
    "ONNX": onnx,
    "ONNX, groups": onnx,
    "torch program": torch_program,
}
"""What a copy or an artefact of a model gives for `images(1)`; one that is exported
runs without the package."""


def test_every_row_of_the_table_is_tested():
    """Every file and copy of the table is tested here."""
    loaded = {file_of(each, end) for each in NAMES for end in ("", WITH_OPTIMIZER)}
    assert OUTPUTS.keys() | loaded == FILES.keys()


@pytest.mark.parametrize("plan", ["auto", "direct"])
@pytest.mark.parametrize("name", OUTPUTS)
def test_converted_models_export_like_stock(tmp_path, name, plan):
    """A converted model can be saved and exported wherever stock can."""
    cell = FILES[name][BACKEND]
    for module in cell.needs:
        pytest.importorskip(module)
    model = converted_model(plan, grouped=name != "ONNX")
    if cell.is_refused or (cell.stock_cant and plan == "auto"):
        errors = []
        for each in (kd.revert(model, copy=True), model):
            with pytest.raises(Exception) as error:
                OUTPUTS[name](each, tmp_path)
            errors.append(error.type)
        assert errors[0] is errors[1], error.value
        return
    found = OUTPUTS[name](model, tmp_path)
    np.testing.assert_allclose(found, outputs_of(model, images(1)), atol=1e-5)


@pytest.mark.parametrize("saved_by", NAMES)
def test_a_file_of_any_backend_loads(saved_by):
    """Each was saved there, converted, with what it gave for the inputs.

    Stock Keras writes the class of torch's own optimizer into the file, which loads
    there only (seen in 3.15).
    """
    path = DATA / f"from_{saved_by}.keras"
    if keras_internals.VERSION < (3, 15):
        # Older Keras knows no `input_axes`, which 3.15 writes for initializers.
        with pytest.raises(ValueError, match=r"saved by Keras 3\.15"):
            load(path)
        return
    with_optimizer = not FILES[file_of(saved_by, WITH_OPTIMIZER)][BACKEND].neither
    if not with_optimizer:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))["compile_config"]
        with pytest.raises(TypeError):
            keras.saving.deserialize_keras_object(config["optimizer"])
        with pytest.raises(TypeError):
            keras.models.load_model(path)
    model = keras.models.load_model(path, compile=with_optimizer)
    with np.load(DATA / f"from_{saved_by}.npz") as known:
        found = outputs_of(model, known["inputs"])
        np.testing.assert_allclose(found, known["outputs"], rtol=1e-4, atol=1e-5)
    assert [str(layer.plan) for layer in ours_in(model)] == ["direct"] * 4
    if with_optimizer:
        assert int(model.optimizer.iterations) == 1
        model.train_on_batch(images(), np.ones((2, 3)))
    assert not ours_in(kd.revert(model))


@pytest.mark.parametrize(
    "plan", ["novel:3", {"kernel_gradient": "matmul:novel"}, {"novel": "direct"}]
)
def test_a_later_versions_file_loads(tmp_path, plan):
    """A plan of algorithms or passes that this version lacks becomes `"auto"`, with a
    warning."""
    model = converted_model("direct")
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = files["config.json"].replace(b'"plan": "direct"', b'"plan": "native"')
    config = config.replace(
        b'"plan": "native"', b'"plan": ' + json.dumps(plan).encode(), 1
    )
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        for name, content in {**files, "config.json": config}.items():
            archive.writestr(name, content)
    with pytest.warns(UserWarning, match="does not know the plan of .* 'auto' now"):
        loaded = keras.models.load_model(tmp_path / "model.keras")
    plans = [str(layer.plan) for layer in ours_in(loaded)]
    assert sorted(plans) == ["auto", *["native"] * (len(plans) - 1)]
    np.testing.assert_allclose(
        outputs_of(loaded, images(1)), outputs_of(model, images(1)), atol=1e-5
    )


def exported_by_keras(model, path):
    model.export(path, verbose=False)


def saved_by_tensorflow(model, path):
    import tensorflow as tf

    tf.saved_model.save(model, str(path))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow")
@pytest.mark.parametrize("export", [exported_by_keras, saved_by_tensorflow])
@pytest.mark.parametrize(
    ("plan", "is_native"),
    [("auto", True), ("native", True), ("direct", False), ("direct:compiled", False)],
)
def test_exports_are_native_unless_asked(
    tmp_path, monkeypatch, plan, is_native, export
):
    """Exports are native unless asked otherwise.

    This holds also where a decision for this device says otherwise.
    """
    import tensorflow as tf

    from keras_diagwise.planning.dispatch import Dispatcher

    monkeypatch.setattr(
        Dispatcher,
        "answer",
        lambda self, problem, plan, environment=None, answer=Dispatcher.answer: (
            answer(self, problem, plan, environment)
            if plan != "auto" or tf.executing_eagerly() or exporting()
            else Answer(kd.Plan(*["direct:compiled"] * 3), "decision")
        ),
    )
    from keras_diagwise.backends.keras_internals import is_exporting as exporting

    model = converted_model(plan)
    model.predict(images(), verbose=0)
    export(model, tmp_path / "artefact")
    served = tf.saved_model.load(str(tmp_path / "artefact"))
    graph = served.signatures["serving_default"].graph.as_graph_def()
    operations = {node.op for node in graph.node}
    operations |= {n.op for f in graph.library.function for n in f.node_def}
    assert ("DepthwiseConv2dNative" in operations) == is_native
    functions = graph.library.function
    compiled = [f.signature.name for f in functions if f.attr["_XlaMustCompile"].b]
    # Stock compiles a grouped convolution (seen in Keras 3.15).
    assert not [name for name in compiled if "conv_xla" not in name]


@pytest.mark.skipif(BACKEND != "jax", reason="about JAX")
def test_exports_have_no_own_primitives(monkeypatch):
    """A program that Keras exports has none of the package's primitives.

    Whatever makes an artefact of it would have to know them.
    """
    import jax

    from keras_diagwise import backends

    kernel = np.ones((3, 3, 4, 1), "float32")

    def program():
        return str(
            jax.make_jaxpr(lambda x: kd.depthwise_conv(x, kernel, plan="direct"))(
                images()
            )
        )

    assert "diagonalwise_forward" in program()
    monkeypatch.setattr(backends.active, "is_exporting", lambda: True)
    assert "diagonalwise_forward" not in program()


@pytest.mark.skipif(BACKEND != "jax", reason="about JAX")
@pytest.mark.parametrize("is_of_this_device", [True, False])
def test_jax_exports_native_unless_asked(is_of_this_device):
    import jax.export

    from keras_diagwise import backends
    from keras_diagwise.planning.call import depthwise_problem
    from keras_diagwise.planning.planned_convolution import PlannedConvolution

    problem = depthwise_problem(
        (2, *SHAPE), "float32", (3, 3, 4, 1), 1, "same", "channels_last", 1
    )
    plan = kd.Plan("direct", "direct", "direct")
    convolution = PlannedConvolution(problem, plan, is_of_this_device)

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
