"""A model is put back as it was, whatever a step has done to it."""

import random
import signal

import keras
import numpy as np
import pytest

from keras_diagwise.models.copy import duplicated
from keras_diagwise.models.snapshot import NotRestoredError, restored
from tests.models import wild
from tests.models.walk import Walk
from tests.strategies import to_numpy


def damaged(model):
    """Does to a model what a step may, and more."""
    model.train_on_batch(*wild.batch(5))
    model.compile("sgd", "mae")
    layer = model.get_layer("depthwise")
    layer.trainable = False
    layer.note = "new"
    layer.kernel.assign(layer.kernel * 0 + 9)
    del layer.mine["a"]
    layer.mine["b"] = 2
    layer.numbers.append(3)
    layer.table[0] = 9.0
    layer.generator.normal()
    random.random()
    np.random.rand()
    keras.random.normal((2,))


def damaged_within(model, error):
    """Damages a model, and then raises an error, or is interrupted."""
    with restored(model):
        damaged(model)
        if error is None:
            signal.raise_signal(signal.SIGINT)
        raise error


def prepared():
    model = wild.compiled(wild.small(keras.layers.Dropout(0.5)))
    model.train_on_batch(*wild.batch())
    layer = model.get_layer("depthwise")
    layer.mine, layer.numbers = {"a": 1}, [1, 2]
    layer.table, layer.generator = np.zeros(3), np.random.default_rng(0)
    return model


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_everything_is_put_back(error):
    model = prepared()
    keras.utils.set_random_seed(1)
    keras.random.normal((2,))
    expected = to_numpy(keras.random.normal((2,)))
    keras.utils.set_random_seed(1)
    keras.random.normal((2,))
    before, states = duplicated(model), (random.getstate(), np.random.get_state()[2])
    if error is None:
        with restored(model):
            damaged(model)
    else:
        with pytest.raises(error):
            damaged_within(model, error)
    Walk(before, model)
    assert states == (random.getstate(), np.random.get_state()[2])
    np.testing.assert_array_equal(to_numpy(keras.random.normal((2,))), expected)
    model.train_on_batch(*wild.batch(6))


@pytest.fixture
def interruptible():
    """Ctrl-C raises `KeyboardInterrupt`: a shell's background job ignores it."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


def test_ctrl_c_leaves_it_as_it_was(interruptible):
    model = prepared()
    before = duplicated(model)

    with pytest.raises(KeyboardInterrupt):
        damaged_within(model, None)
    Walk(before, model)


@pytest.mark.skipif(wild.BACKEND != "torch", reason="about torch's tensors")
def test_unwritable_tensors_stop_nothing():
    import torch

    model = prepared()
    layer = model.get_layer("depthwise")
    layer.mask = torch.ones(1, 4).expand(3, 4)
    with torch.inference_mode():
        layer.seen = torch.ones(2)
    layer.resized = torch.ones(2)
    before = duplicated(model)
    with restored(model):
        damaged(model)
        layer.resized.resize_(5)
    assert layer.resized.tolist() == [1.0, 1.0]
    layer.resized = before.get_layer("depthwise").resized = None
    Walk(before, model)


@pytest.mark.skipif(wild.BACKEND != "torch", reason="about torch's tensors")
def test_requires_grad_is_put_back():
    model = prepared()
    with restored(model):
        model.get_layer("depthwise").trainable = False
    kernel = np.array(model.get_layer("depthwise").get_weights()[0])
    model.train_on_batch(*wild.batch(6))
    assert not np.array_equal(kernel, model.get_layer("depthwise").get_weights()[0])


@pytest.mark.skipif(wild.BACKEND != "jax", reason="JAX's steps donate their operands")
def test_donated_arrays_are_put_back():
    """Arrays that a step donates are put back, in tuples too."""
    model = prepared()
    layer = model.get_layer("depthwise")
    layer.initial = tuple(v.value for v in model.trainable_variables)
    with restored(model):
        damaged(model)
    assert not any(each.is_deleted() for each in layer.initial)
    model.train_on_batch(*wild.batch(6))
    with restored(model):  # of which some are deleted now
        damaged(model)


def test_unrestorable_parts_are_reported():
    """A part that can't be put back is reported, and all else is put back."""

    class Stubborn:
        def __init__(self):
            self.held = np.zeros(2)

    model = prepared()
    layer = model.get_layer("depthwise")
    layer.stubborn = Stubborn()
    kernel = np.array(layer.get_weights()[0])

    def freeze():
        with restored(model):
            damaged(model)
            layer.stubborn.held[0] = 1
            layer.stubborn.held.flags.writeable = False

    with pytest.raises(NotRestoredError, match="1 part"):
        freeze()
    np.testing.assert_array_equal(layer.get_weights()[0], kernel)
    assert layer.trainable
