"""Dense convolutions: converted where they have another algorithm than stock's."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

import keras_diagwise as kd
from keras_diagwise import backends
from keras_diagwise.algorithms import Matmul
from keras_diagwise.decision import Decision
from keras_diagwise.models.environment import environment_of
from keras_diagwise.models.problems import uses_in
from keras_diagwise.ops import dispatcher
from keras_diagwise.problem import PASSES
from tests.algorithms.suite import dense
from tests.samples import comparison
from tests.strategies import to_numpy

pytestmark = pytest.mark.usefixtures("nothing_known")

MEASURED = {name: comparison(native=1.0, matmul=0.1) for name in PASSES}
FAST = kd.Plan("matmul", "matmul", "matmul")


@pytest.fixture
def offered(monkeypatch):
    monkeypatch.setattr(Matmul, "is_offered", lambda *where: True)


def small_model():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, padding="same", name="dense"),
            layers.SeparableConv2D(5, 3, padding="same", name="separable"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, name="classes"),
        ]
    )
    model.compile("sgd", "mse")
    return model


def batch():
    generator = np.random.default_rng(0)
    return generator.normal(size=(4, 8, 8, 3)), generator.normal(size=(4, 2))


def converted_in(model):
    return [layer.name for layer in model.layers if hasattr(layer, "plan")]


def lines(model):
    return [
        (line.path, line.role, str(line.plan))
        for line in kd.summary(model, batch_size=4)
    ]


@pytest.mark.usefixtures("no_dense")
def test_left_alone_if_stock_is_the_only_one():
    """Dense convolutions are left alone where stock's is the only algorithm."""
    model = kd.convert(small_model(), verbose=0)
    assert converted_in(model) == ["separable"]
    assert [line.role for line in kd.summary(model)] == ["plan"]


@pytest.mark.usefixtures("offered")
def test_converted_if_there_is_another():
    """Dense convolutions are converted where they have another algorithm."""
    stock = small_model()
    model = kd.convert(stock, copy=True, verbose=0)
    assert converted_in(model) == ["dense", "separable"]
    roles = [(line.path, line.role) for line in kd.summary(model)]
    assert roles == [
        ("dense", "plan"),
        ("separable", "plan"),
        ("separable", "pointwise_plan"),
    ]
    back = kd.revert(model, copy=True)
    assert not converted_in(back)
    assert back.get_config() == stock.get_config()


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize("plan", ["native", "direct", "diagonal:2"])
def test_other_plans_leave_them_alone(plan):
    """A plan for other convolutions leaves dense ones alone."""
    model = kd.convert(small_model(), plan=plan, verbose=0)
    assert converted_in(model) == ["separable"]
    assert str(model.get_layer("separable").pointwise_plan) == "native"


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize("plan", ["native", "direct", "diagonal:2", "diagonal:4"])
def test_converting_again_is_as_from_stock(plan):
    """A plan for other convolutions also leaves dense ones alone that were converted
    before, whatever their channels."""
    model = kd.convert(kd.convert(small_model(), verbose=0), plan=plan, verbose=0)
    assert str(model.get_layer("dense").plan) == "native"
    separable = model.get_layer("separable")
    found = str(separable.plan), str(separable.pointwise_plan)
    assert found == (plan, "native")
    assert np.isfinite(model.predict(np.ones((1, *model.input_shape[1:])))).all()


@pytest.mark.usefixtures("no_dense")
def test_a_pinned_model_says_they_are_stocks():
    """Where dense convolutions are stock's, a pinned model says so."""
    model = kd.pin(kd.convert(small_model(), verbose=0), batch_size=4)
    assert model.get_layer("separable").get_config()["pointwise_plan"] == "native"
    kd.convert(model, verbose=0)
    assert model.get_layer("separable").pointwise_plan == "auto"
    kd.revert(kd.pin(model, batch_size=4))
    assert not converted_in(model)


@pytest.mark.usefixtures("no_dense")
def test_tune_refuses_where_they_are_stocks():
    """`tune` refuses dense convolutions that have no other algorithm."""
    problem = dense((6, 6), 3, 4, (1, 1))
    with pytest.raises(ValueError, match="a dense convolution has no other algorithm"):
        kd.tune([problem], verbose=0)


@pytest.mark.parametrize(
    ("plan", "expected"), [("auto", "auto"), ("direct", "native"), ("matmul", "matmul")]
)
def test_a_given_plan_leaves_none_to_resolve(plan, expected):
    """A plan that was given leaves no pointwise plan to resolve.

    This holds also for a file from before there was a second one.
    """
    layer = kd.DiagonalwiseSeparableConv2D(4, 3, plan=plan)
    config = layer.get_config()
    del config["pointwise_plan"]
    for each in (layer, type(layer).from_config(config)):
        assert str(each.pointwise_plan) == expected


@pytest.mark.usefixtures("offered")
def test_pointwise_of_one_channel_is_stocks():
    """A pointwise convolution of one channel is stock's."""
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.SeparableConv2D(5, 3, name="separable")]
    )
    kd.convert(model, verbose=0)
    assert [line.role for line in kd.summary(model)] == ["plan"]


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize("is_built", [True, False])
def test_of_a_single_channel_they_are_stocks(is_built):
    convolution = layers.Conv2D(4, 3, name="single")
    input_layer = [keras.Input((8, 8, 1))] if is_built else []
    model = kd.convert(
        keras.Sequential(
            [*input_layer, convolution, layers.SeparableConv2D(5, 3, name="separable")]
        ),
        verbose=0,
    )
    assert ("single" in converted_in(model)) != is_built
    model(np.ones((4, 8, 8, 1)))
    assert {line.path for line in kd.summary(model, batch_size=4)} == {"separable"}
    assert not [use for use in uses_in(model, 4) if use.path == "single"]


def pixel_model():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Dense(6, name="over_pixels"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, name="classes"),
        ]
    )
    model.compile("sgd", "mse")
    return model


@pytest.mark.usefixtures("offered")
def test_dense_layers_over_pixels_are_converted(monkeypatch):
    """Where stock's product has gradients of several axes; others are not mentioned."""
    stock = pixel_model()
    for keeps_axes in (True, False):
        monkeypatch.setattr(backends.active, "MATMUL_KEEPS_AXES", keeps_axes)
        model = kd.convert(stock, copy=True, verbose=0)
        expected = ["over_pixels"] if keeps_axes else []
        assert converted_in(model) == [*expected, "depthwise"]
        assert not kd.summary(model).skipped
        assert kd.revert(model, copy=True).get_config() == stock.get_config()


@pytest.mark.usefixtures("offered")
def test_one_use_may_have_unknown_channels(monkeypatch):
    """A layer is shared by inputs, of which one tells no number of channels."""
    monkeypatch.setattr(backends.active, "MATMUL_KEEPS_AXES", True)
    for shared in (layers.Dense(3), layers.Conv1D(3, 1)):
        inputs = [keras.Input((5, 4)), keras.Input((5, None))]
        model = keras.Model(inputs, [shared(each) for each in inputs])
        kd.convert(model, verbose=0)
        assert hasattr(shared, "plan")
        assert {line.path for line in kd.summary(model)} == {shared.name}


@pytest.mark.usefixtures("offered")
def test_subclasses_of_dense_layers_are_left_alone(monkeypatch):
    """Their configuration for building may be anything."""
    monkeypatch.setattr(backends.active, "MATMUL_KEEPS_AXES", True)
    for config in ({"input_shape": 7}, [1], None):

        class Own(layers.Dense):
            def get_build_config(self, config=config):
                return config

        first = layers.DepthwiseConv2D(3, name="depthwise")
        model = keras.Sequential([keras.Input((8, 8, 3)), first, Own(2)])
        kd.convert(model, verbose=0)
        assert converted_in(model) == ["depthwise"]


@pytest.mark.usefixtures("offered")
def test_an_unbuilt_dense_layer_is_converted(monkeypatch):
    """Nothing tells yet whether it will see pixels."""
    monkeypatch.setattr(backends.active, "MATMUL_KEEPS_AXES", True)
    layer = layers.Dense(3, name="unbuilt")
    model = kd.convert(keras.Sequential([layer, layers.SeparableConv2D(3, 3)]))
    assert converted_in(model)[0] == "unbuilt"
    model.build((None, 8, 8, 4))
    assert not kd.summary(model).skipped


@pytest.mark.usefixtures("offered")
def test_a_decision_for_a_dense_layer_serves(monkeypatch):
    """The decision for the 1×1 convolution of its shape does not."""
    monkeypatch.setattr(backends.active, "MATMUL_KEEPS_AXES", True)
    model = kd.convert(pixel_model(), verbose=0)
    line = kd.summary(model, batch_size=4)[0]
    environment = environment_of(model)
    convolution = dataclasses.replace(line.problem, operation="conv")
    for problem, plan in ((convolution, "native"), (line.problem, "matmul")):
        dispatcher.store.put(environment, Decision(problem, MEASURED))
        dispatcher.forget()
        assert lines(model)[0] == ("over_pixels", "plan", plan)
    stock = pixel_model()
    stock.set_weights(model.get_weights())
    images, targets = batch()
    one, other = (each.train_on_batch(images, targets) for each in (stock, model))
    assert one == pytest.approx(other, rel=1e-5)
    for one, other in zip(stock.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("no_dense")
def test_a_plan_for_them_is_always_obeyed():
    """A plan for dense convolutions is obeyed even where none is offered."""
    stock = small_model()
    model = kd.convert(stock, plan="matmul", copy=True, verbose=0)
    assert converted_in(model) == ["dense", "separable"]
    assert lines(model) == [
        ("dense", "plan", "matmul"),
        ("separable", "plan", "native"),
        ("separable", "pointwise_plan", "matmul"),
    ]
    images, targets = batch()
    one, other = (to_numpy(each(images)) for each in (stock, model))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    one, other = (each.train_on_batch(images, targets) for each in (stock, model))
    assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.usefixtures("offered")
def test_measured_plans_serve_and_are_pinned():
    """Measured plans serve and can be pinned."""
    model = kd.convert(small_model(), verbose=0)
    environment = environment_of(model)
    for line in kd.summary(model, batch_size=4):
        if line.problem.is_dense:
            dispatcher.store.put(environment, Decision(line.problem, MEASURED))
    dispatcher.forget()
    expected = [
        ("dense", "plan", "matmul"),
        ("separable", "plan", "native"),
        ("separable", "pointwise_plan", "matmul"),
    ]
    assert lines(model) == expected
    kd.pin(model, batch_size=4)
    assert model.get_layer("dense").plan == FAST
    assert model.get_layer("separable").pointwise_plan == FAST
    again = keras.models.clone_model(model)
    assert again.get_layer("separable").pointwise_plan == FAST
    assert again.get_layer("dense").plan == FAST
