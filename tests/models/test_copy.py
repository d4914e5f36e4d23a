"""Copies of models as people write them: equal in everything, and nothing shared."""

import collections
import datetime
import functools
import os
import pathlib
import threading
import weakref

import keras
import numpy as np
import pytest

import keras_diagwise as kd
from keras_diagwise.layers.family import Diagonalwise
from keras_diagwise.models.copy import duplicated
from tests.models import wild
from tests.models.walk import Walk

every = pytest.mark.parametrize("name", wild.MODELS)


def trained(model, steps, seed=0):
    """Losses of some steps on random batches, and the weights after them."""
    losses = []
    for step in range(steps):
        keras.utils.set_random_seed(step)  # torch's dropout draws from the global one
        losses.append(model.train_on_batch(*wild.batch(seed + step)))
    return losses


def state(model):
    """Every variable that a step changes, bit by bit."""
    found = [*model.variables, *model.metrics_variables]
    optimizers = [model.optimizer, getattr(model, "another", None)]
    found += [v for each in optimizers if each is not None for v in each.variables]
    return [keras.ops.convert_to_numpy(v.value).tobytes() for v in found]


@every
def test_a_copy_differs_in_nothing(name):
    model = wild.MODELS[name]()
    if name != "not_built":
        trained(model, 2)
    Walk(model, duplicated(model))


@every
def test_a_copy_trains_as_its_model_does(name):
    model = wild.MODELS[name]()
    trained(model, 2)
    copy = kd.convert(model, plan="native", copy=True, verbose=0)
    before = state(model)
    losses = trained(copy, 3, seed=2)
    assert state(model) == before
    assert trained(model, 3, seed=2) == losses
    assert state(model) == state(copy)


@every
def test_in_place_the_next_steps_equal_stocks(name):
    model = wild.MODELS[name]()
    trained(model, 2)
    stock = kd.revert(model, copy=True)
    before = state(model)
    assert kd.convert(model, plan="native", verbose=0) is model
    assert any(isinstance(each, Diagonalwise) for each in model._flatten_layers())
    assert state(model) == before
    assert trained(model, 3, seed=2) == trained(stock, 3, seed=2)
    assert state(model) == state(stock)


def of_a_module(y_true, y_pred):
    return keras.ops.mean(y_pred) + MODEL.scale


MODEL = None


def unlike(kind):
    """A model with something that can't be duplicated, and how Python reaches it."""
    model = wild.compiled(wild.small())
    layer = model.get_layer("depthwise")
    if kind == "lock":
        layer.lock = threading.Lock()
    elif kind == "file":
        layer.notes = {"log": open(os.devnull)}  # noqa: SIM115
    elif kind == "thread":
        model.worker = threading.Thread(target=print)
    elif kind == "generator":
        layer.stream = [(i for i in range(3))]
    elif kind == "closure":
        lock = threading.Lock()
        model.helper = lambda: lock
    elif kind == "global":
        global MODEL
        MODEL = model
        MODEL.scale = 3.0
        model.compile("sgd", of_a_module)
    return model


REFUSED = {
    "lock": r"small\._layers\[1\]\.lock, in the layer .depthwise.",
    "file": r"small\._layers\[1\]\.notes\['log'\]",
    "thread": r"small\.worker",
    "generator": r"small\._layers\[1\]\.stream\[0\]",
    "closure": r"small\.helper\.__closure__\[0\]\.cell_contents",
    "global": r"test_copy\.of_a_module .* names small by its variable 'MODEL'",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_duplicated_is_refused_by_its_path(kind):
    model = unlike(kind)
    with pytest.raises(ValueError, match=REFUSED[kind]) as error:
        kd.convert(model, copy=True)
    assert "Without `copy`" in str(error.value)
    assert not any(isinstance(each, Diagonalwise) for each in model.layers)
    kd.convert(model, verbose=0)
    assert any(isinstance(each, Diagonalwise) for each in model.layers)


def test_code_of_a_class_that_names_the_model_is_refused():
    model = wild.compiled(wild.small())

    class Reading(keras.callbacks.Callback):
        def on_epoch_end(self, *arguments):
            model.seen = True

    model.watcher = Reading()
    with pytest.raises(ValueError, match=r"on_epoch_end .* names small"):
        kd.convert(model, copy=True)


def test_objects_of_other_kinds_are_duplicated_and_stay_shared():
    model = wild.compiled(wild.small())
    layer = model.get_layer("depthwise")
    layer.bag = bag = Bag()  # in which Keras tracks nothing
    shared = {"a": [1, (2, 3)], "when": datetime.date(2026, 1, 2)}
    bag.things = [shared, shared, collections.deque([1, 2], 2)]
    bag.counts = collections.defaultdict(list, {"a": [1]})
    bag.order = collections.OrderedDict(b=1, a=2)
    bag.seen = {id(layer), "x"}
    bag.by_layer = {layer: "itself"}
    bag.generator = np.random.default_rng(3)
    bag.generator.normal(size=5)
    bag.point = Point(1, [2])
    bag.slots = Slots()
    bag.partial = functools.partial(print, shared, end="")
    bag.method = bag.things.append
    bag.reference = weakref.ref(layer)
    bag.table = np.array([None, shared], dtype=object)
    bag.path_to = pathlib.Path("a/b")
    copy = duplicated(model)
    Walk(model, copy)
    layer_of_copy = copy.get_layer("depthwise")
    twin = layer_of_copy.bag
    assert twin.things[0] is twin.things[1] is twin.partial.args[0] is twin.table[1]
    assert twin.things[0] == shared
    assert twin.things[0] is not shared
    assert twin.things[2].maxlen == 2
    assert twin.counts["new"] == []
    assert list(twin.order) == ["b", "a"]
    assert twin.seen == {id(layer_of_copy), "x"}
    assert twin.by_layer == {layer_of_copy: "itself"}
    assert twin.generator.normal() == bag.generator.normal()
    assert twin.point == Point(1, [2])
    assert twin.point.right is not bag.point.right
    assert twin.slots.inside == [1]
    assert twin.slots.inside is not bag.slots.inside
    assert twin.reference() is layer_of_copy
    twin.method(4)
    assert twin.things[-1] == 4
    assert len(bag.things) == 3


def test_a_view_stays_a_view_of_the_same_memory():
    model = wild.attributes_of_every_type()
    twin = duplicated(model).layers[-1]
    twin.table[2] = 9.0
    assert twin.view[0] == 9.0
    assert model.layers[-1].view[0] == 2.0


def test_a_function_of_a_module_is_shared_and_another_is_not():
    model = wild.compiled(wild.small())
    calls = []

    def count(model):
        calls.append(model)

    model.count, model.add = count, keras.ops.add
    copy = duplicated(model)
    assert copy.add is model.add
    copy.count(1)
    assert calls == []


def test_a_deep_graph_is_no_recursion():
    inputs = keras.Input(wild.SHAPE)
    outputs = inputs
    for _ in range(400):
        outputs = keras.layers.Activation("linear")(outputs)
    model = keras.Model(inputs, keras.layers.DepthwiseConv2D(3)(outputs))
    assert len(duplicated(model).layers) == len(model.layers)


@pytest.mark.skipif(wild.BACKEND != "tensorflow", reason="TensorFlow's checkpoints")
def test_a_copy_can_be_saved_as_its_model_can(tmp_path):
    """Containers that TensorFlow wraps know what they hold, see `Proxy`."""
    import tensorflow as tf

    model = wild.attributes_of_every_type()
    for i, each in enumerate((model, duplicated(model))):
        tf.train.Checkpoint(model=each).save(tmp_path / str(i))
        tf.saved_model.save(each, str(tmp_path / f"saved_{i}"))


Point = collections.namedtuple("Point", ["left", "right"])


class Bag:
    pass


class Slots:
    __slots__ = ("empty", "inside")

    def __init__(self):
        self.inside = [1]
