"""Copies of models as people write them: equal in everything, and nothing shared."""

import keras
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
