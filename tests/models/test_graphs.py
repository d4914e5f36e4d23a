"""Any graph of layers: converting and reverting preserve all but the computation.

`HYPOTHESIS_PROFILE=long` draws 500 graphs with something to convert.
"""

import tempfile
from pathlib import Path

import hypothesis
import keras
import numpy as np
from hypothesis import strategies as st

import keras_diagwise as kd
from keras_diagwise.layers.base import Diagonalwise
from keras_diagwise.models.survey import (
    has_replacement,
    reason_to_leave,
    takes_dense,
)
from keras_diagwise.plan import standardize_plan
from tests.strategies import to_numpy

CHANNELS = 4
SHAPE = (5, 5, CHANNELS)
layers = keras.layers


@keras.saving.register_keras_serializable("tests")
class Offset(layers.DepthwiseConv2D):
    """A subclass with a behaviour of its own."""

    def call(self, inputs):
        return super().call(inputs) + 1


@keras.saving.register_keras_serializable("tests")
class Holder(layers.Layer):
    """A layer that holds others in a list and a dictionary."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.listed = [layers.DepthwiseConv2D(3, padding="same", name="listed")]
        self.by_name = {"it": layers.Conv2D(CHANNELS, 1, groups=2, name="named")}

    def build(self, input_shape):
        self.listed[0].build(input_shape)
        self.by_name["it"].build(input_shape)

    def call(self, inputs):
        return self.by_name["it"](self.listed[0](inputs))


def leaf(kind, **arguments):
    """A layer that keeps the shape."""
    same = {"padding": "same", **arguments}
    return {
        "depthwise": lambda: layers.DepthwiseConv2D(3, **same),
        "separable": lambda: layers.SeparableConv2D(CHANNELS, (2, 3), **same),
        "grouped": lambda: layers.Conv2D(CHANNELS, 3, groups=2, **same),
        "by channel": lambda: layers.Conv2D(CHANNELS, 3, groups=CHANNELS, **same),
        "dense": lambda: layers.Conv2D(CHANNELS, 1, **arguments),
        "subclass": lambda: Offset(3, **same),
        "holder": lambda: Holder(**arguments),
        "normalization": lambda: layers.BatchNormalization(**arguments),
        "activation": lambda: layers.Activation("tanh", **arguments),
    }[kind]()


KINDS = (
    *("depthwise", "separable", "grouped", "by channel", "dense"),
    *("subclass", "holder", "normalization", "activation"),
)
PLANS = ("auto", "native", "direct", "diagonal:2", "diagonal:4:split")
leaves = st.tuples(
    st.just("leaf"),
    st.sampled_from(KINDS),
    st.sampled_from([None, None, None, "float32", "mixed_bfloat16"]),
    st.booleans(),
)


def composed(parts):
    some = st.lists(parts, min_size=1, max_size=3)
    return st.one_of(
        st.tuples(st.just("chain"), some),
        st.tuples(st.just("branches"), some),
        st.tuples(st.just("twice"), some),
        st.tuples(st.just("functional"), some),
        st.tuples(st.just("sequential"), st.lists(leaves, min_size=1, max_size=3)),
    )


graphs = st.recursive(leaves, composed, max_leaves=6)


def apply(part, x):
    """Calls what a drawn part means on a tensor."""
    kind, *rest = part
    if kind == "leaf":
        return made(rest)(x)
    (parts,) = rest
    if kind == "chain":
        return chained(parts, x)
    if kind == "branches":
        return layers.Add()([x, *(apply(each, x) for each in parts)])
    if kind == "sequential":
        return keras.Sequential([keras.Input(SHAPE), *(made(p[1:]) for p in parts)])(x)
    inputs = keras.Input(SHAPE)
    inner = keras.Model(inputs, chained(parts, inputs))
    return inner(inner(x)) if kind == "twice" else inner(x)


def chained(parts, x):
    for part in parts:
        x = apply(part, x)
    return x


def made(drawn):
    kind, policy, trainable = drawn
    return leaf(kind, trainable=trainable, **({"dtype": policy} if policy else {}))


def built(graph):
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, apply(graph, inputs))


def facts(model):
    below = model._flatten_layers()
    return {
        "names": [layer.name for layer in below],
        "flags": [(layer.trainable, layer.dtype_policy.name) for layer in below],
        "variables": [(v.name, v.dtype, v.trainable) for v in model.variables],
        "weights": [w.tobytes() for w in model.get_weights()],
    }


def classes(model):
    return [type(layer) for layer in model._flatten_layers()]


def outputs_of(model):
    images = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
    return to_numpy(model(images)).astype("float64")


@hypothesis.given(
    graph=graphs,
    plan=st.sampled_from(PLANS),
    copy=st.booleans(),
)
@hypothesis.settings(max_examples=max(6, hypothesis.settings().max_examples // 4))
def test_any_graph(graph, plan, copy):
    keras.utils.clear_session(free_memory=False)
    model = built(graph)
    before, of_stock, outputs = facts(model), classes(model), outputs_of(model)
    dense = takes_dense(model, standardize_plan(plan))
    due = {
        i
        for i, layer in enumerate(model._flatten_layers())
        if has_replacement(layer, dense) and reason_to_leave(layer, dense) is None
    }
    hypothesis.assume(due)
    converted = kd.convert(model, plan=plan, copy=copy, verbose=0)
    below = converted._flatten_layers()
    assert {i for i, each in enumerate(below) if isinstance(each, Diagonalwise)} == due
    assert facts(converted) == before
    low = any("bfloat16" in policy for _, policy in before["flags"])
    scale = max(1.0, np.abs(outputs).max())
    np.testing.assert_allclose(
        outputs_of(converted), outputs, atol=scale * (0.1 if low else 1e-4)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ours.weights.h5"
        converted.save_weights(path)
        reverted = kd.revert(converted, copy=copy)
        assert (classes(reverted), facts(reverted)) == (of_stock, before)
        np.testing.assert_array_equal(outputs_of(reverted), outputs)
        keras.utils.clear_session(free_memory=False)
        fresh = built(graph)
        fresh.load_weights(path)
        assert facts(fresh)["weights"] == before["weights"]
