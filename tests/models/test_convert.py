"""Converting models and the way back: nothing but the computation changes."""

import dataclasses
import functools
import gc
import random
import re

import keras
import numpy as np
import pytest

import keras_diagwise as kd
from keras_diagwise import Plan
from keras_diagwise.backends.keras_internals import train_on_batch
from keras_diagwise.layers import STOCK_TO_OURS
from keras_diagwise.layers.base import Diagonalwise
from keras_diagwise.models.environment import environment_of
from keras_diagwise.ops import dispatcher
from keras_diagwise.planning.dispatch import serves_dense
from keras_diagwise.storage.document import Document
from tests.fake_runner import traced_plans
from tests.samples import decision, document

pytestmark = pytest.mark.usefixtures("store")

BACKEND = keras.backend.backend()
SHAPE = (12, 12, 3)


def block(x, name, stride):
    x = keras.layers.DepthwiseConv2D(
        3, stride, padding="same", use_bias=False, name=name
    )(x)
    return keras.layers.ReLU(6.0)(keras.layers.BatchNormalization()(x))


def small_model(dropout=0.0):
    inputs = keras.Input(SHAPE)
    x = keras.layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    x = block(x, "first", 1)
    x = block(x, "second", 2)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(
        inputs, keras.layers.Dense(3, activation="softmax")(x), name="small"
    )


def compiled(model, optimizer=None):
    model.compile(
        optimizer or keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy"
    )
    return model


def batch(size=6, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(size, *SHAPE)), generator.integers(0, 3, size)


def ours_in(model):
    return [layer for layer in model.layers if isinstance(layer, Diagonalwise)]


def snapshot(model):
    """Everything of a model that a conversion must leave as it is."""
    state = [np.array(v) for v in model.get_weights()]
    optimizer = (
        [np.array(v.value) for v in model.optimizer.variables] if model.compiled else []
    )
    names = [(layer.name, layer.trainable) for layer in model.layers]
    return (
        names,
        [v.path for v in model.variables],
        [a.tobytes() for a in state + optimizer],
    )


@pytest.mark.parametrize("copy", [False, True])
def test_converts_and_reverts_bit_exactly(copy):
    model = compiled(small_model())
    model.train_on_batch(*batch())
    before = snapshot(model)
    converted = kd.convert(model, copy=copy, verbose=0)
    assert (converted is model) != copy
    dense = ["stem"] if serves_dense(environment_of(model)) else []
    assert [layer.name for layer in ours_in(converted)] == [*dense, "first", "second"]
    assert snapshot(converted) == before
    reverted = kd.revert(converted, copy=copy)
    assert not ours_in(reverted)
    assert [type(layer) for layer in reverted.layers] == [
        type(layer) for layer in small_model().layers
    ]
    assert snapshot(reverted) == before
    assert snapshot(model) == before
    for layer in reverted.layers:
        assert "plan" not in layer.get_config()


@pytest.mark.parametrize("copy", [False, True])
def test_half_trained_model_stays_bit_equal(copy):
    """A half-trained model goes on bit-equal to stock under native.

    Optimizer state, seeds of dropout, moving averages and learning rate all stay.
    """
    model = compiled(small_model(dropout=0.5))
    for step in range(3):
        model.train_on_batch(*batch(seed=step))
    model.optimizer.learning_rate = 0.003
    stock = kd.revert(model, copy=True)
    twin = kd.convert(model, plan="native", copy=copy, verbose=0)
    for step in range(3, 6):
        losses = []
        for each in (stock, twin):
            # torch's dropout draws from the global one.
            keras.utils.set_random_seed(step)
            losses.append(each.train_on_batch(*batch(seed=step)))
        assert losses[0] == losses[1]
    assert snapshot(stock)[2] == snapshot(twin)[2]


def images():
    generator = np.random.default_rng(1)
    return generator.normal(size=(4, 64, 64, 3)), np.array([0, 3, 4, 1])


@functools.cache
def mobilenet_v2_and_its_step():
    """A stock model, and the loss and the weights of a copy of it after a step."""
    keras.utils.set_random_seed(0)
    stock = keras.applications.MobileNetV2((64, 64, 3), weights=None, classes=5)
    compiled(stock, keras.optimizers.SGD(0.05))
    trained = kd.revert(stock, copy=True)
    loss = trained.train_on_batch(*images())
    return stock, loss, trained.get_weights()


@pytest.mark.parametrize(
    "plan",
    ["direct", "diagonal:32:split", Plan("diagonal:8", "direct", "direct:rows")],
    ids=str,
)
def test_one_step_of_mobilenet_v2_in_float64(float64, plan):
    """Every weight after a step of SGD agrees with stock to 1e-9 in norm."""
    untrained, loss, after = mobilenet_v2_and_its_step()
    ours = kd.convert(untrained, plan=plan, copy=True, verbose=0)
    np.testing.assert_allclose(ours.train_on_batch(*images()), loss, rtol=1e-10)
    moved = 0
    for start, one, other in zip(
        untrained.get_weights(), after, ours.get_weights(), strict=True
    ):
        assert one.dtype == other.dtype == np.float64
        moved += not np.array_equal(start, one)
        # Batch normalization cancels some shifts: their gradients are rounding only.
        assert np.linalg.norm(one - other) <= 1e-9 * np.linalg.norm(one) + 1e-14
    assert moved > 100


def test_a_copy_draws_no_random_numbers():
    """A copy draws no numbers from the user's generators."""
    model = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.DepthwiseConv2D(3)])
    model.add(keras.layers.Dropout(0.5))
    keras.utils.set_random_seed(7)
    before = random.getstate(), np.random.get_state()[1].tolist()
    kd.convert(model, copy=True, verbose=0)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_a_trained_sequential_converts():
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.DepthwiseConv2D(3),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    compiled(model, keras.optimizers.SGD(0.1, momentum=0.9))
    model.train_on_batch(*batch())
    converted = kd.convert(model, plan="native", copy=True, verbose=0)
    assert snapshot(converted)[2] == snapshot(model)[2]
    losses = [each.train_on_batch(*batch()) for each in (model, converted)]
    assert losses[0] == losses[1]


def test_a_copy_counts_as_called():
    """A copy counts as called if its model was.

    Keras exports no other.
    """
    model = small_model()
    assert not kd.convert(model, copy=True, verbose=0)._called
    model(batch()[0])
    converted = kd.convert(model, copy=True, verbose=0)
    assert converted._called
    assert kd.revert(converted, copy=True)._called


def test_weight_files_serve_both_ways(tmp_path):
    stock = small_model()
    converted = kd.convert(stock, copy=True, verbose=0)
    partly = kd.convert(stock, filters="first", copy=True, verbose=0)
    models = {"stock": stock, "converted": converted, "partly": partly}
    for name, model in models.items():
        model.save_weights(tmp_path / f"{name}.weights.h5")
    for name in models:
        for other in models.values():
            other.set_weights([np.zeros_like(w) for w in stock.get_weights()])
        for other in models.values():
            other.load_weights(tmp_path / f"{name}.weights.h5")
            assert any(np.any(w) for w in other.get_weights())
    assert snapshot(stock) == snapshot(converted) == snapshot(partly)


class ListOfLayers(keras.Model):
    """A subclassed model whose layers stand in an unnamed list."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolutions = [
            keras.layers.DepthwiseConv2D(3, name=f"convolution_{i}") for i in range(3)
        ]

    def call(self, inputs):
        for layer in self.convolutions:
            inputs = layer(inputs)
        return inputs


def test_unnamed_lists_exchange_weights(tmp_path):
    """Weight files of layers in unnamed lists load both from stock and into it."""
    stock, ours = ListOfLayers(), ListOfLayers()
    images = np.random.default_rng(0).normal(size=(2, 9, 9, 3)).astype("float32")
    expected = stock.predict(images, verbose=0)
    ours.predict(images, verbose=0)
    kd.convert(ours, filters="_1$", plan="direct", verbose=0)
    stock.save_weights(tmp_path / "stock.weights.h5")
    ours.load_weights(tmp_path / "stock.weights.h5")
    np.testing.assert_allclose(ours.predict(images, verbose=0), expected, atol=1e-5)
    ours.save_weights(tmp_path / "ours.weights.h5")
    stock.load_weights(tmp_path / "ours.weights.h5")
    np.testing.assert_allclose(stock.predict(images, verbose=0), expected, atol=1e-6)


def test_a_saved_model_keeps_its_plans(tmp_path):
    model = compiled(kd.convert(small_model(), plan=Plan(forward="direct"), verbose=0))
    model.train_on_batch(*batch())
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert [layer.plan for layer in ours_in(again)] == [Plan(forward="direct")] * 2
    assert snapshot(again)[2] == snapshot(model)[2]
    one, other = (train_on_batch(each, *batch()) for each in (again, model))
    assert one == other


def test_the_next_step_runs_the_new_plans(monkeypatch):
    """Also where someone holds the old compiled function."""
    seen = traced_plans(monkeypatch)
    model = compiled(small_model())
    for step in (model.train_on_batch, model.test_on_batch):
        step(*batch())
    model.predict_on_batch(batch()[0])
    held = [model.train_function, model.test_function, model.predict_function]
    assert not seen
    for plan in ("direct", "diagonal:4"):
        kd.convert(model, plan=plan, verbose=0)
        for step in (
            lambda: model.train_on_batch(*batch()),
            lambda: model.test_on_batch(*batch()),
            lambda: model.predict_on_batch(batch()[0]),
        ):
            seen.clear()
            step()
            assert set(seen) == {plan}
        held += [model.train_function, model.test_function, model.predict_function]
    kd.revert(model)
    seen.clear()
    model.train_on_batch(*batch())
    assert not seen
    assert len(held) == 9


def test_converting_again_changes_only_plans():
    model = kd.convert(small_model(), plan="direct", verbose=0)
    before = snapshot(model)
    kd.convert(model, plan="direct", verbose=0)
    assert snapshot(model) == before
    kd.convert(model, plan="native", verbose=0)
    assert [str(layer.plan) for layer in ours_in(model)] == ["native"] * 2


def test_unbuilt_models_convert():
    model = keras.Sequential(
        [keras.layers.DepthwiseConv2D(3), keras.layers.DepthwiseConv2D(3)]
    )
    kd.convert(model, plan="direct", verbose=0)
    assert model.predict(np.ones((2, 8, 8, 2)), verbose=0).shape == (2, 4, 4, 2)
    assert len(ours_in(model)) == 2


def test_unbuilt_models_revert():
    model = keras.Sequential([keras.layers.DepthwiseConv2D(3)])
    kd.convert(model, plan="direct", verbose=0)
    kd.revert(model)
    assert model.predict(np.ones((2, 8, 8, 2)), verbose=0).shape == (2, 6, 6, 2)
    assert type(model.layers[0]) is keras.layers.DepthwiseConv2D
    ours = keras.Sequential([kd.DiagonalwiseDepthwiseConv2D(3)])
    kd.revert(ours)
    assert ours.predict(np.ones((2, 8, 8, 2)), verbose=0).shape == (2, 6, 6, 2)


def test_unbuilt_layer_refuses_plan_at_build():
    """An unbuilt layer refuses a plan that does not fit once it is built."""
    model = keras.Sequential([keras.layers.DepthwiseConv2D(3)])
    kd.convert(model, plan="diagonal:9", verbose=0)
    with pytest.raises(ValueError, match="partition_size=9"):
        model.build((None, 8, 8, 2))


def test_subclasses_of_ours_are_left_alone():
    class Own(kd.DiagonalwiseDepthwiseConv2D):
        pass

    model = keras.Sequential([keras.Input(SHAPE), Own(3)])
    kd.revert(model)
    assert type(model.layers[0]) is Own


def test_a_filter_sees_the_original_layers():
    """A filter sees the layers of the given model, also for a copy."""
    model = small_model()
    first = model.get_layer("first")
    converted = kd.convert(model, filters=lambda x: x is first, copy=True, verbose=0)
    assert [layer.name for layer in ours_in(converted)] == ["first"]


def test_settings_after_compile_are_copied():
    model = compiled(small_model())
    model.run_eagerly, model.steps_per_execution, model.jit_compile = True, 3, False
    copy = kd.convert(model, copy=True, verbose=0)
    assert (copy.run_eagerly, copy.steps_per_execution, copy.jit_compile) == (
        True,
        3,
        False,
    )


@keras.saving.register_keras_serializable("tests")
class Scale(keras.layers.Layer):
    """Its weight has no name of its own, as in ConvNeXt's `LayerScale`."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * self.scale


def test_model_with_unnamed_weight_is_copied():
    inputs = keras.Input((8, 8, 4))
    x = keras.layers.DepthwiseConv2D(3)(inputs)
    model = compiled(keras.Model(inputs, Scale()(Scale()(x))))
    converted = kd.convert(model, copy=True, verbose=0)
    assert ours_in(converted)
    images = np.ones((2, 8, 8, 4), "float32")
    np.testing.assert_allclose(
        converted.predict(images, verbose=0), model.predict(images, verbose=0), 1e-5
    )


def test_the_copy_shares_nothing():
    model = compiled(small_model())
    converted = kd.convert(model, copy=True, verbose=0)
    before = snapshot(model)
    converted.train_on_batch(*batch())
    assert snapshot(model) == before
    assert not {id(v) for v in model.variables} & {id(v) for v in converted.variables}


def test_frozen_layers_stay_frozen():
    model = small_model()
    model.get_layer("first").trainable = False
    converted = compiled(kd.convert(model, plan="direct", verbose=0))
    frozen = converted.get_layer("first").get_weights()
    converted.train_on_batch(*batch())
    np.testing.assert_array_equal(frozen, converted.get_layer("first").get_weights())


@pytest.mark.parametrize(
    "filters",
    ["first", ["fir", "nothing"], lambda layer: layer.name == "first"],
    ids=["regex", "list", "callable"],
)
def test_filters_choose(filters):
    converted = kd.convert(small_model(), filters=filters, verbose=0)
    assert [layer.name for layer in ours_in(converted)] == ["first"]


def test_stock_subclasses_are_left_alone():
    class Own(keras.layers.DepthwiseConv2D):
        def call(self, inputs):
            return super().call(inputs) + 1

    model = keras.Sequential(
        [keras.Input(SHAPE), Own(3), keras.layers.DepthwiseConv2D(3)]
    )
    kd.convert(model, verbose=0)
    assert [type(layer).__qualname__.split(".")[-1] for layer in model.layers] == [
        "Own",
        "DiagonalwiseDepthwiseConv2D",
    ]


def test_unlike_subclasses_are_left_alone():
    """Subclasses that lack what stock layers have are left alone too."""

    class WeightStandardized(keras.layers.Conv2D):
        def build(self, input_shape):
            shape = (*self.kernel_size, input_shape[-1], self.filters)
            self.raw = self.add_weight(name="raw", shape=shape)
            self.built = True

        def call(self, inputs):
            return keras.ops.conv(inputs, self.raw / keras.ops.std(self.raw))

    class Secretive(keras.layers.Dense):
        def get_build_config(self):
            raise NotImplementedError

    depthwise = keras.layers.DepthwiseConv2D(3)
    own = WeightStandardized(4, 3), Secretive(4)
    model = keras.Sequential([keras.Input(SHAPE), *own, depthwise])
    model.compile("sgd", "mse", jit_compile=BACKEND != "torch")
    kd.convert(model, verbose=0)
    classes = [type(layer) for layer in model.layers]
    assert classes == [WeightStandardized, Secretive, kd.DiagonalwiseDepthwiseConv2D]
    skipped = {
        each.layer.rpartition(".")[2]: each for each in kd.summary(model).skipped
    }
    is_dense = "one group" if BACKEND == "torch" else "subclass"
    assert skipped["WeightStandardized"].reason == is_dense


def test_nothing_to_convert_is_one_warning():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.warns(UserWarning, match="nothing to convert") as caught:
        assert kd.convert(model) is model
    assert len(caught) == 1


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"plan": "fastest"}, "fastest"),
        ({"plan": "diagonal:0"}, "partition_size=0"),
        ({"plan": "diagonal:9"}, "partition_size=9"),
        ({"plan": 7}, "plan=7"),
        ({"filters": "("}, "filters='('"),
        ({"filters": 7}, "filters=7"),
    ],
)
def test_bad_arguments_change_nothing(arguments, named, copy):
    """Bad arguments are named and leave the model as it was."""
    model = compiled(small_model())
    before = snapshot(model)
    with pytest.raises(ValueError) as error:
        kd.convert(model, **arguments, copy=copy)
    assert named in str(error.value)
    assert snapshot(model) == before
    assert not ours_in(model)


@pytest.mark.parametrize(
    "model", [None, "MobileNetV2", keras.layers.DepthwiseConv2D(3)]
)
def test_what_is_no_model_is_refused(model):
    with pytest.raises(TypeError, match=r"keras\.Model"):
        kd.convert(model)
    with pytest.raises(TypeError, match=r"keras\.Model"):
        kd.revert(model)
    with pytest.raises(TypeError, match=r"keras\.Model"):
        kd.summary(model)


@pytest.mark.parametrize("size", [0, -1, 2.5, "2", True, np.array(2.5)])
def test_a_batch_size_is_a_positive_int(size):
    model = kd.convert(small_model(), verbose=0)
    for function in (kd.summary, kd.pin, kd.tune):
        with pytest.raises(ValueError, match=re.escape(f"batch_size={size!r}")):
            function(model, batch_size=size)
    lines = kd.summary(model, batch_size=np.int64(8))
    assert {line.problem.batch for line in lines} == {8}


def test_a_failure_in_the_middle_swaps_back(monkeypatch):
    model = small_model()

    class Cursed(STOCK_TO_OURS[keras.layers.DepthwiseConv2D]):
        @property
        def plan(self):
            raise AttributeError

        @plan.setter
        def plan(self, value):
            if self.name == "second":
                raise RuntimeError("planted")

    monkeypatch.setitem(STOCK_TO_OURS, keras.layers.DepthwiseConv2D, Cursed)
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="planted"):
        kd.convert(model)
    assert snapshot(model) == before
    assert {type(model.get_layer(name)) for name in ("first", "second")} == {
        keras.layers.DepthwiseConv2D
    }


def test_a_converted_model_is_collected():
    """No cache of ours keeps a model alive."""
    import weakref

    model = kd.convert(small_model(), plan="direct", verbose=0)
    model(np.ones((1, *SHAPE)))
    layer = weakref.ref(ours_in(model)[0])
    del model
    keras.utils.clear_session()
    for _ in range(3):
        gc.collect()
    assert layer() is None


def test_summary_names_layers_and_plans():
    model = kd.convert(small_model(), plan="direct", verbose=0)
    lines = kd.summary(model, batch_size=4)
    assert [line.path for line in lines] == ["first", "second"]
    assert {str(line.plan) for line in lines} == {"direct"}
    assert {line.rung for line in lines} == {"layer"}
    assert lines[0].problem.batch == 4


def test_summary_names_the_plan_that_runs():
    """Not the one asked for, where that can't compute the problem."""
    model = keras.Sequential(
        [keras.Input((4, 160, 2)), keras.layers.DepthwiseConv2D((1, 150))]
    )
    kd.convert(model, plan="direct", verbose=0)
    assert [str(line.plan) for line in kd.summary(model)] == ["native"]


def test_summary_names_the_measured_device(monkeypatch):
    """The summary names the device that was measured instead.

    Of those measured it is the one with vectors as wide as this one's.
    """
    model = kd.convert(small_model(), verbose=0)
    here = environment_of(model)
    problems = [line.problem for line in kd.summary(model, batch_size=4)]
    shipped = Document()
    for bits in (128, here.vector_bits, 1024):
        there = dataclasses.replace(here, device_name=f"of {bits}", vector_bits=bits)
        shipped |= document(there, *map(decision, problems))
    monkeypatch.setattr(dispatcher.planner, "shipped", shipped)
    dispatcher.forget()
    found = kd.summary(model, batch_size=4)
    assert {line.rung for line in found} == {"other device"}
    assert str(found).count("Rung 'other device'") == 1
    assert f"measured on of {here.vector_bits} (" in str(found)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="others have one compiler mode")
def test_summary_knows_the_compiler_mode():
    model = kd.convert(small_model(), verbose=0)
    for jit_compile in (True, False):
        model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=jit_compile)
        native = {
            str(line.plan) == "native" for line in kd.summary(model, batch_size=4)
        }
        assert native == {not jit_compile}


def test_default_plan_is_shipped_under_xla(
    monkeypatch,
):
    """The default plan is the shipped one under XLA, and native elsewhere.

    This holds on CPU, also where the batch is unknown, as in `fit` on TensorFlow. The
    layer is one of MobileNetV2's, for which native is many times slower under every
    XLA.
    """
    shape, batch_size = (14, 14, 576), 16
    images = np.zeros((batch_size, *shape), "float32")
    model = keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.DepthwiseConv2D(3, padding="same"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    kd.convert(model, verbose=0)
    seen = traced_plans(monkeypatch)
    for jit_compile in (True, False) if BACKEND == "tensorflow" else ("auto",):
        model.compile("sgd", "mse", jit_compile=jit_compile)
        seen.clear()
        model.fit(images, images[:, 0, 0], batch_size, verbose=0)
        model.predict(images, batch_size, verbose=0)
        if BACKEND == "jax" or jit_compile is True:
            [line] = kd.summary(model, batch_size=batch_size)
            assert set(seen) == {str(line.plan)}
            assert "native" not in str(line.plan)
            assert line.rung in ("decision", "other versions", "other device")
        else:
            assert not seen
