"""Copies of models as people write them: equal in everything, and nothing shared."""

import collections
import datetime
import functools
import logging
import os
import pathlib
import threading
import uuid
import weakref

import keras
import numpy as np
import pytest

import keras_diagwise as kd
from keras_diagwise.layers.base import Diagonalwise
from keras_diagwise.models.copy import duplicated
from keras_diagwise.models.snapshot import restored
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
def test_next_steps_in_place_equal_stocks(name):
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
    "global": r"of_a_module can't be: it names small by its variable 'MODEL'",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_uncopyable_state_is_refused_by_path(kind):
    """State that can't be duplicated is refused by its path, and nothing is changed."""
    model = unlike(kind)
    with pytest.raises(ValueError, match=REFUSED[kind]) as error:
        kd.convert(model, copy=True)
    assert "Without `copy=True`" in str(error.value)
    assert not any(isinstance(each, Diagonalwise) for each in model.layers)
    kd.convert(model, verbose=0)
    assert any(isinstance(each, Diagonalwise) for each in model.layers)


def test_class_naming_the_model_is_refused():
    """A class whose code names the model is refused."""
    model = wild.compiled(wild.small())

    class Reading(keras.callbacks.Callback):
        def on_epoch_end(self, *arguments):
            model.seen = True

    model.watcher = Reading()
    with pytest.raises(
        ValueError, match=r"Reading can.t be: it names small by .on_epoch_end"
    ):
        kd.convert(model, copy=True)


def penalty():
    return sum(keras.ops.sum(w**2) for w in HELD["it"].trainable_variables)


def indirect(y_true, y_pred):
    return keras.ops.mean((y_true - y_pred) ** 2) + penalty()


class Trainer:
    """Holds what a layer's call reads from a global variable."""

    head = None


HELD = {}
TRAINER = Trainer()


class ByGlobal(keras.layers.Layer):
    def call(self, inputs):
        return TRAINER.head(inputs)


class ByClass(keras.layers.Layer):
    head = None

    def call(self, inputs):
        return self.head(inputs)


def by_default(head):
    class ByDefault(keras.layers.Layer):
        def call(self, inputs, head=head):
            return head(inputs)

    return ByDefault()


def by_closure(held):
    class ByClosure(keras.layers.Layer):
        def call(self, inputs):
            return held[0](inputs)

    return ByClosure()


def reaching(how):
    """A model with code that reaches state which a copy would share."""
    if how == "functions and containers":
        model = HELD["it"] = wild.small()
        model.compile("sgd", indirect)
        return model
    head = keras.layers.Dense(4)
    head.build((None, 6, 6, 4))
    if how == "object":
        TRAINER.head = head
        return wild.compiled(wild.small(ByGlobal()))
    if how == "class":
        ByClass.head = head
        return wild.compiled(wild.small(ByClass()))
    made = by_default(head) if how == "default" else by_closure([head])
    return wild.compiled(wild.small(made))


@pytest.mark.parametrize(
    "how", ["functions and containers", "object", "class", "default", "closure"]
)
def test_state_in_shared_code_is_refused(how):
    """State that is reached by shared code is refused."""
    model = reaching(how)
    with pytest.raises(ValueError, match=r"can't be duplicated, because .*: it names"):
        duplicated(model)
    HELD.clear()
    TRAINER.head = ByClass.head = None


def test_a_model_can_be_copied_during_fit():
    """A model can be copied during a fit with validation."""

    class Copying(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            copies.append(duplicated(self.model))

    copies, model = [], wild.compiled(wild.small())
    model.fit(
        *wild.batch(),
        validation_data=wild.batch(1),
        epochs=2,
        verbose=0,
        callbacks=[Copying()],
    )
    trained(copies[1], 1)


def test_array_subclasses_are_preserved():
    """Masked arrays and record arrays are copied as such."""
    model = wild.compiled(wild.small())
    model.bag = Bag()
    model.bag.masked = np.ma.array([1, 2, 3, 4], mask=[0, 0, 1, 1])
    model.bag.records = np.rec.array([(1, 2.0)], dtype=[("a", int), ("b", float)])
    bag = duplicated(model).bag
    assert bag.masked.sum() == 3
    assert bag.records.b[0] == 2.0
    assert bag.masked.data is not model.bag.masked.data


def test_keys_hashed_by_value_are_found():
    model = wild.compiled(wild.small())
    model.bag = Bag()
    key = uuid.uuid4()
    model.bag.by_id, model.bag.ids = {key: 1}, {key}
    model.bag.by_value = {Keyed({"a": [1]}): "found"}
    bag = duplicated(model).bag
    assert bag.by_id[key] == 1
    assert key in bag.ids
    assert bag.by_value[Keyed({"a": [1]})] == "found"


def test_attributes_beyond_pickle_are_copied():
    """Attributes that an object does not tell pickle of are copied."""
    model = wild.compiled(wild.small())
    model.bag = Bag()
    model.bag.counter = Counter(3)
    model.bag.counter.seen = [1]
    model.bag.weak = weakref.WeakValueDictionary(it=model.get_layer("depthwise"))
    copy = duplicated(model)
    assert copy.bag.counter.seen == [1]
    assert copy.bag.counter.seen is not model.bag.counter.seen
    assert copy.bag.weak["it"] is copy.get_layer("depthwise")


@pytest.mark.skipif(wild.BACKEND != "torch", reason="torch's tensors share memory")
def test_shared_memory_of_tensors_is_kept():
    """Tensors that share memory share it in the copy."""
    import torch

    model = wild.compiled(wild.small())
    model.bag = Bag()
    model.bag.whole = torch.zeros(4)
    model.bag.part = model.bag.whole[:2]
    bag = duplicated(model).bag
    bag.whole += 1
    assert bag.part.tolist() == [1.0, 1.0]
    assert model.bag.part.tolist() == [0.0, 0.0]


@pytest.mark.skipif(wild.BACKEND != "tensorflow", reason="TensorFlow's resources")
def test_tensorflow_objects_are_copied():
    """Variables, functions and tables of TensorFlow are copied; an iterator is refused.

    Shapes and names stay.
    """
    import tensorflow as tf

    model = wild.compiled(wild.small())
    model.v = tf.Variable([1.0], shape=[None], name="count")
    model.bag = Bag()
    model.bag.names = [f"count_{i}" for i in range(300)]
    copy = duplicated(model)
    copy.v.assign([1.0, 2.0])
    assert copy.bag.names == model.bag.names
    model.bag.double = tf.function(lambda x: 2 * x)
    model.bag.double(tf.zeros(2))
    assert duplicated(model).bag.double(tf.ones(())).numpy() == 2.0
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    table.insert(tf.constant(["a"]), tf.constant([1], tf.int64))
    model.bag.table = table
    copy = duplicated(model)
    table.insert(tf.constant(["a"]), tf.constant([5], tf.int64))
    assert copy.bag.table.lookup(tf.constant(["a"])).numpy() == [1]
    model.bag.numbers = iter(tf.data.Dataset.range(5))
    with pytest.raises(ValueError, match=r"bag\.numbers"):
        duplicated(model)


@pytest.mark.skipif(wild.BACKEND != "tensorflow", reason="TensorFlow's strategies")
def test_trained_strategy_model_is_copied():
    """A model trained under a strategy of TensorFlow is copied, and trains alike."""
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = wild.compiled(wild.small())
    trained(model, 2)
    copy = duplicated(model)
    assert trained(copy, 2, seed=2) == trained(model, 2, seed=2)


@pytest.mark.skipif(wild.BACKEND != "jax", reason="JAX's compiled functions")
def test_compiled_jax_function_is_refused():
    """A function compiled by JAX is refused by its path."""
    import jax

    model = wild.compiled(wild.small())
    model.fast = jax.jit(lambda x: model(x))
    with pytest.raises(ValueError, match=r"small\.fast can't be"):
        duplicated(model)


def test_other_objects_stay_shared():
    """Objects of other kinds are duplicated, and shared ones stay shared."""
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
    bag.hook = weakref.WeakMethod(layer.count_params, bag.things.append)
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
    assert twin.hook().__self__ is layer_of_copy
    twin.method(4)
    assert twin.things[-1] == 4
    assert len(bag.things) == 3


def test_a_logger_stays_shared():
    """A process has one of each name, with handlers and locks behind it."""
    model = wild.compiled(wild.small())
    layer = model.get_layer("depthwise")
    layer.log = logging.getLogger("keras_diagwise.of_a_model")
    assert duplicated(model).get_layer("depthwise").log is layer.log
    with restored(model):
        logging.getLogger("keras_diagwise.of_a_step")
        layer.log = None
    assert layer.log.name == "keras_diagwise.of_a_model"
    assert "keras_diagwise.of_a_step" in logging.root.manager.loggerDict


class Stateful:
    """Reduces itself to a state that has no truth value."""

    def __init__(self, values):
        self.values = values

    def __reduce__(self):
        return made_empty, ("its name",), self.values

    def __setstate__(self, values):
        self.values = values


def made_empty(name):
    return Stateful(None)


def test_states_of_any_kind_are_copied():
    """Also arrays, and weak methods of what is gone."""
    model = wild.compiled(wild.small())
    layer = model.get_layer("depthwise")
    layer.bag = bag = Bag()
    bag.stateful = Stateful(np.arange(3))
    bag.gone = weakref.WeakMethod(Stateful(None).__reduce__)
    assert bag.gone() is None
    twin = duplicated(model).get_layer("depthwise").bag
    np.testing.assert_array_equal(twin.stateful.values, np.arange(3))
    assert twin.stateful is not bag.stateful
    assert twin.gone() is None


def test_a_view_stays_a_view():
    """A view stays a view of its array's memory."""
    model = wild.attributes_of_every_type()
    twin = duplicated(model).layers[-1]
    twin.table[2] = 9.0
    assert twin.view[0] == 9.0
    assert model.layers[-1].view[0] == 2.0


def test_only_module_functions_are_shared():
    """A function of a module is shared, and a local one is duplicated."""
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
def test_a_copy_can_be_saved(tmp_path):
    """A copy can be saved as its model can.

    Containers that TensorFlow wraps know what they hold, see `Proxy`.
    """
    import tensorflow as tf

    model = wild.attributes_of_every_type()
    for i, each in enumerate((model, duplicated(model))):
        tf.train.Checkpoint(model=each).save(tmp_path / str(i))
        tf.saved_model.save(each, str(tmp_path / f"saved_{i}"))


Point = collections.namedtuple("Point", ["left", "right"])


class Bag:
    pass


class Keyed:
    """Hashed and compared by a dictionary."""

    def __init__(self, held):
        self.held = held

    def __hash__(self):
        return hash(tuple(self.held))

    def __eq__(self, other):
        return self.held == other.held


class Counter:
    """Says less than it holds."""

    def __init__(self, start):
        self.start = start

    def __reduce__(self):
        return Counter, (self.start,)


class Slots:
    __slots__ = ("empty", "inside")

    def __init__(self):
        self.inside = [1]
