"""`pin`: the plans of here and now, taken along."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_diagwise as kd
from keras_diagwise.decision import Decision
from keras_diagwise.environment import Environment
from keras_diagwise.models.environment import environment_of
from keras_diagwise.models.problems import uses_in
from keras_diagwise.ops import dispatcher
from keras_diagwise.storage.store import Store
from tests.fake_runner import traced_plans
from tests.samples import comparison

pytestmark = pytest.mark.usefixtures("nothing_known")

MEASURED = {
    "forward": comparison(native=1.0, direct=0.1),
    "input_gradient": comparison(native=1.0, **{"diagonal:2": 0.1}),
    "kernel_gradient": comparison(native=0.1, direct=1.0),
}
PLAN = kd.Plan("direct", "diagonal:2", "native")
BATCH = 2


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A function that makes this another device, on which nothing is known."""
    here = Environment.current

    def current():
        return dataclasses.replace(here(), device_name="another", cores=64)

    def move():
        monkeypatch.setattr(Environment, "current", current)
        monkeypatch.setattr(dispatcher.planner, "store", Store(tmp_path / "elsewhere"))
        dispatcher.forget()

    return move


def depthwise(name):
    return keras.layers.DepthwiseConv2D(3, padding="same", name=name)


def small_model(shared=False):
    """Two layers, or one called on two shapes; converted and compiled."""
    x = keras.Input((8, 8, 4))
    first = depthwise("first")
    second = first if shared else depthwise("second")
    smaller = keras.layers.MaxPooling2D()(first(x))
    outputs = keras.layers.GlobalAveragePooling2D()(second(smaller))
    model = kd.convert(keras.Model(x, outputs), verbose=0)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def measure(store, model, passes=None):
    """Decisions for all that a model's layers pose, by which they run `PLAN`."""
    for use in uses_in(model, BATCH):
        decision = Decision(use.problem, passes or MEASURED)
        store.put(environment_of(model), decision)
    dispatcher.forget()


def batch():
    random = np.random.default_rng(0)
    shapes = (BATCH, 8, 8, 4), (BATCH, 4)
    return [random.normal(size=shape).astype("float32") for shape in shapes]


def planned(model):
    """The plan and the rung of each layer and shape."""
    found = kd.summary(model, batch_size=BATCH)
    return [(each.plan, each.rung) for each in found]


def reloaded(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


def test_pinned_plans_run_on_another_device(store, tmp_path, elsewhere, monkeypatch):
    model = small_model()
    measure(store, model)
    assert planned(model) == [(PLAN, "decision")] * 2
    assert kd.pin(model, batch_size=BATCH) is model
    seen = traced_plans(monkeypatch)
    elsewhere()
    there = reloaded(model, tmp_path)
    assert planned(there) == [(PLAN, "layer")] * 2
    there.train_on_batch(*batch())
    assert set(seen) == {str(PLAN)}


def test_unpinned_plans_resolve_anew(store, tmp_path, elsewhere, monkeypatch):
    """Plans that are not pinned resolve anew on another device."""
    model = small_model()
    measure(store, model)
    seen = traced_plans(monkeypatch)
    elsewhere()
    there = reloaded(model, tmp_path)
    assert planned(there) == [(kd.Plan(), "native")] * 2
    there.train_on_batch(*batch())
    assert not seen
    other = {name: comparison(native=1.0, direct=0.1) for name in MEASURED}
    measure(dispatcher.store, there, other)
    direct = kd.Plan("direct", "direct", "direct")
    assert planned(there) == [(direct, "decision")] * 2


def test_converting_again_undoes_it(store):
    model = small_model()
    measure(store, model)
    kd.pin(model, batch_size=BATCH)
    kd.convert(model, verbose=0)
    assert planned(model) == [(PLAN, "decision")] * 2
    assert [use.layer.plan for use in uses_in(model, BATCH)] == ["auto"] * 2


def test_the_next_step_runs_the_pinned_plans(store, monkeypatch):
    model = small_model()
    seen = traced_plans(monkeypatch)
    model.train_on_batch(*batch())
    model.predict_on_batch(batch()[0])
    assert not seen
    measure(store, model)
    kd.pin(model, batch_size=BATCH)
    assert not seen
    model.train_on_batch(*batch())
    assert set(seen) == {str(PLAN)}
    seen.clear()
    model.predict_on_batch(batch()[0])
    assert set(seen) == {str(PLAN)}


def test_the_larger_of_two_shapes_is_pinned(store):
    """A layer of two shapes is pinned to the plan of the larger."""
    model = small_model(shared=True)
    larger, smaller = uses_in(model, BATCH)
    assert larger.problem.flops > smaller.problem.flops
    environment = environment_of(model)
    store.put(environment, Decision(larger.problem, MEASURED))
    other = {name: comparison(native=1.0, direct=0.1) for name in MEASURED}
    store.put(environment, Decision(smaller.problem, other))
    dispatcher.forget()
    assert planned(model)[0] != planned(model)[1]
    kd.pin(model, batch_size=BATCH)
    assert planned(model) == [(PLAN, "layer")] * 2


def test_pinned_numbers_are_those_of_auto(store):
    """Weights stay, and numbers are those of `auto`."""
    model, twin = small_model(), small_model()
    twin.set_weights(model.get_weights())
    measure(store, model)
    before = model.get_weights()
    kd.pin(model, batch_size=BATCH)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for _ in range(2):
        losses = [float(each.train_on_batch(*batch())) for each in (model, twin)]
        assert losses[0] == losses[1]
    np.testing.assert_array_equal(
        *(np.asarray(each.predict_on_batch(batch()[0])) for each in (model, twin))
    )


def test_pinned_frozen_layers_stay_frozen(store):
    model = small_model()
    model.get_layer("first").trainable = False
    model.compile(keras.optimizers.SGD(0.1), "mse")
    measure(store, model)
    kd.pin(model, batch_size=BATCH)
    assert planned(model) == [(PLAN, "layer")] * 2
    before = model.get_weights()
    model.train_on_batch(*batch())
    after = model.get_weights()
    assert not model.get_layer("first").trainable
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[2] != after[2]).any()


def test_batch_size_defaults_to_the_largest(store):
    """Without a batch size, the largest measured one counts."""
    model = small_model()
    measure(store, model)
    kd.pin(model)
    assert planned(model) == [(PLAN, "layer")] * 2


def test_plans_that_are_given_stay(store):
    model = small_model()
    measure(store, model)
    kd.convert(model, plan="direct:rows", filters="second", verbose=0)
    given = planned(model)[1]
    kd.pin(model, batch_size=BATCH)
    assert planned(model) == [(PLAN, "layer"), given]


def test_model_with_nothing_to_pin_is_named():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="dense")
    with pytest.raises(ValueError, match=r"model='dense'.*convert first"):
        kd.pin(model)
    with pytest.raises(TypeError, match="`model` must be"):
        kd.pin("model")


def test_a_pinned_model_looks_up_nothing(store, monkeypatch):
    model = small_model()
    measure(store, model)
    kd.pin(model, batch_size=BATCH)

    def fail(*arguments):
        raise AssertionError("asked for a decision")

    monkeypatch.setattr(dispatcher.planner, "plan", fail)
    model.train_on_batch(*batch())
    model.predict_on_batch(batch()[0])
