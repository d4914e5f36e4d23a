"""Every kind of model: each layer is converted right or left alone, with the reason
said; and nothing else of the model changes."""

import gc
import importlib

import keras
import numpy as np
import pytest

import keras_diagwise as kd
from keras_diagwise.layers import STOCK_TO_OURS
from keras_diagwise.layers.base import Diagonalwise
from keras_diagwise.models.survey import REASONS
from tests.strategies import to_numpy

pytestmark = pytest.mark.usefixtures("no_dense", "store")

CONVERT = importlib.import_module("keras_diagwise.models.convert")
SWAP = importlib.import_module("keras_diagwise.models.swap")
SHAPE = (10, 10, 4)
layers = keras.layers
both_ways = pytest.mark.parametrize("copy", [False, True])


def images(*more, size=3, seed=0):
    shape = (size, *more, *SHAPE)
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def paths(model):
    return [line.path for line in kd.summary(model)]


def reasons(model):
    return {each.path: each.reason for each in kd.summary(model).skipped}


def plain(x, filters=4):
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.SeparableConv2D(filters, 3, padding="same", name="separable")(x)
    x = layers.Conv2D(filters, 3, groups=2, padding="same", name="grouped")(x)
    return layers.Conv2D(filters, 1, name="dense")(x)


def sequential():
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.SeparableConv2D(4, 3, name="separable"),
            layers.Conv2D(4, 3, groups=2, name="grouped"),
            layers.Conv2D(4, 1, name="dense"),
        ]
    )


def functional():
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, plain(inputs))


def nested():
    inputs = keras.Input(SHAPE)
    deep = keras.Sequential(
        [keras.Input(SHAPE), layers.DepthwiseConv2D(3)], name="deep"
    )
    inner_inputs = keras.Input(SHAPE)
    inner = keras.Model(inner_inputs, deep(plain(inner_inputs)), name="inner")
    return keras.Model(inputs, inner(inputs))


def shared():
    inputs = keras.Input(SHAPE)
    layer = layers.DepthwiseConv2D(3, padding="same", name="shared")
    x = layer(layers.ReLU()(layer(inputs)))
    return keras.Model(inputs, layers.Add()([x, inputs]))


def several():
    one, other = keras.Input(SHAPE, name="one"), keras.Input(SHAPE, name="other")
    x = plain(one)
    y = layers.DepthwiseConv2D(3, padding="same", name="of_the_other")(other)
    return keras.Model([one, other], {"sum": layers.Add()([x, y]), "y": y})


def wrapped():
    inputs = keras.Input((2, *SHAPE))
    layer = layers.DepthwiseConv2D(3, name="inside")
    x = layers.TimeDistributed(layer, name="spread")(inputs)
    grouped = layers.Conv3D(4, 1, groups=2, name="grouped")
    return keras.Model(inputs, grouped(x))


def policies():
    inputs = keras.Input(SHAPE)
    x = layers.DepthwiseConv2D(3, dtype="mixed_bfloat16", name="mixed")(inputs)
    x = layers.Conv2D(4, 3, groups=4, dtype="float32", name="single")(x)
    x = layers.SeparableConv2D(4, 3, dtype="mixed_float16", name="half")(x)
    return keras.Model(inputs, x)


def frozen():
    model = functional()
    model.get_layer("separable").trainable = False
    return model


def steps():
    inputs = keras.Input((12, 4))
    x = layers.DepthwiseConv1D(3)(inputs)
    x = layers.SeparableConv1D(6, 3)(x)
    x = layers.Conv1D(6, 3, groups=3, padding="causal")(x)
    return keras.Model(inputs, x)


MODELS = {
    f.__name__: f
    for f in (
        sequential,
        functional,
        nested,
        shared,
        several,
        wrapped,
        policies,
        frozen,
        steps,
    )
}
EXPECTED = {
    "sequential": ["depthwise", "separable", "grouped"],
    "functional": ["depthwise", "separable", "grouped"],
    "nested": [
        "inner/depthwise",
        "inner/separable",
        "inner/grouped",
        "inner/deep/depthwise_conv2d",
    ],
    "shared": ["shared"],
    "several": ["depthwise", "separable", "grouped", "of_the_other"],
    "wrapped": ["spread/inside", "grouped"],
    "policies": ["mixed", "single", "half"],
    "frozen": ["depthwise", "separable", "grouped"],
    "steps": ["depthwise_conv1d", "separable_conv1d", "conv1d"],
}


def inputs_of(model):
    generator = np.random.default_rng(0)
    found = [
        generator.normal(size=(2, *each.shape[1:])).astype("float32")
        for each in model.inputs
    ]
    return found if len(found) > 1 else found[0]


def outputs_of(model):
    found = keras.tree.flatten(model(inputs_of(model)))
    return [to_numpy(each).astype("float64") for each in found]


def facts(model):
    """Everything of a model that a conversion must leave as it is."""
    below = model._flatten_layers()
    return {
        "names": [layer.name for layer in below],
        "flags": [layer.trainable for layer in below],
        "policies": [layer.dtype_policy.name for layer in below],
        "variables": [(v.name, v.dtype, v.trainable) for v in model.variables],
        "weights": [w.tobytes() for w in model.get_weights()],
    }


@both_ways
@pytest.mark.parametrize("name", MODELS)
def test_converts_and_reverts(name, copy):
    model = MODELS[name]()
    before, outputs = facts(model), outputs_of(model)
    variables = [v.path for v in model.variables]
    classes = [type(layer) for layer in model._flatten_layers()]
    converted = kd.convert(model, plan="direct", copy=copy, verbose=0)
    assert list(dict.fromkeys(paths(converted))) == EXPECTED[name]
    assert facts(converted) == before
    assert [v.path for v in converted.variables] == variables
    low = name == "policies"
    for one, other in zip(outputs_of(converted), outputs, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-2 if low else 1e-4)
    reverted = kd.revert(converted, copy=copy)
    assert [type(layer) for layer in reverted._flatten_layers()] == classes
    assert facts(reverted) == before
    for one, other in zip(outputs_of(reverted), outputs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_shared_layers_stay_shared():
    converted = kd.convert(shared(), verbose=0)
    ours = [each for each in converted.layers if isinstance(each, Diagonalwise)]
    assert len(ours) == 1
    assert len(converted.trainable_weights) == 2


class Block(layers.Layer):
    """A layer that holds others in every way."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attribute = layers.DepthwiseConv2D(3, padding="same", name="attribute")
        self.listed = [
            layers.DepthwiseConv2D(1, name="in_list"),
            (layers.SeparableConv2D(4, 1, name="in_tuple"),),
        ]
        self.by_name = {
            "a": layers.Conv2D(4, 1, groups=2, name="in_dict"),
            "b": [layers.DepthwiseConv2D(1, name="in_list_in_dict")],
        }

    def call(self, inputs):
        x = self.listed[1][0](self.listed[0](self.attribute(inputs)))
        return self.by_name["b"][0](self.by_name["a"](x))


class Subclassed(keras.Model):
    """A model that is no graph, and holds such a layer and models."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block = Block(name="block")
        self.stem = keras.Sequential(
            [layers.DepthwiseConv2D(3, padding="same", name="deep")], name="stem"
        )
        self.head = layers.Dense(3)

    def call(self, inputs):
        return self.head(self.block(self.stem(inputs)))


HELD = [
    "block/attribute",
    "block/in_list",
    "block/in_tuple",
    "block/in_dict",
    "block/in_list_in_dict",
    "stem/deep",
]


@pytest.mark.parametrize("is_built", [False, True])
def test_subclassed_models_convert_in_place(is_built):
    model = Subclassed()
    if is_built:
        outputs = to_numpy(model(images()))
    assert kd.convert(model, plan="direct", verbose=0) is model
    assert paths(model) == HELD
    assert isinstance(model.block.listed[1][0], Diagonalwise)
    assert isinstance(model.block.by_name["b"][0], Diagonalwise)
    assert isinstance(model.stem.layers[-1], Diagonalwise)
    found = to_numpy(model(images()))
    if is_built:
        np.testing.assert_allclose(found, outputs, atol=1e-5)
    kd.revert(model)
    assert paths(model) == []
    np.testing.assert_allclose(to_numpy(model(images())), found, atol=1e-5)


def test_subclassed_model_trains_as_its_twin(float64, tmp_path):
    twins = [Subclassed(), Subclassed()]
    for model in twins:
        model(images())
    twins[1].set_weights(twins[0].get_weights())
    kd.convert(twins[1], plan="direct", verbose=0)
    for model in twins:
        model.compile(keras.optimizers.Adam(0.01), "mse")
        model.fit(images(size=8), np.ones((8, 10, 10, 3)), 4, shuffle=False, verbose=0)
    for one, other in zip(*(m.get_weights() for m in twins), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)
    twins[1].save_weights(tmp_path / "ours.weights.h5")
    twins[0].load_weights(tmp_path / "ours.weights.h5")
    for one, other in zip(*(m.get_weights() for m in twins), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda layer: layers.SpectralNormalization(layer),
        lambda layer: layers.TimeDistributed(layer),
    ],
    ids=["SpectralNormalization", "TimeDistributed"],
)
def test_wrappers(wrap):
    shape = (2, *SHAPE)
    rank = layers.Conv3D if "Spectral" in type(wrap(layers.Dense(2))).__name__ else None
    inside = rank(4, 1, groups=2) if rank else layers.DepthwiseConv2D(3)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, wrap(inside)(inputs))
    outputs = outputs_of(model)
    model.compile("sgd", "mse")
    twin = kd.convert(model, plan="direct", copy=True, verbose=0)
    assert len(paths(twin)) == 1
    np.testing.assert_allclose(outputs_of(twin)[0], outputs[0], atol=1e-5)
    losses = [
        m.train_on_batch(images(2), 0 * outputs_of(m)[0][:1]) for m in (model, twin)
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def left_alone():
    """A model of nothing but what must be left alone, by the reason."""

    @keras.saving.register_keras_serializable("tests")
    class Own(layers.DepthwiseConv2D):
        """A stock layer with a behaviour of its own."""

        def call(self, inputs):
            return super().call(inputs) + 1

    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            Own(3, name="own"),
            layers.Conv2D(4, 1, name="dense"),
            layers.Conv2D(4, 1, groups=2, name="lora"),
            layers.DepthwiseConv2D(1, name="patched"),
            layers.DepthwiseConv2D(1, name="quantized"),
        ]
    )
    model.get_layer("lora").enable_lora(2)
    patched = model.get_layer("patched")
    patched.call = lambda inputs: inputs
    quantized = model.get_layer("quantized")
    quantized._dtype_policy = keras.dtype_policies.get("int8_from_float32")
    return model


ALONE = {
    "own": "subclass",
    "dense": "one group",
    "lora": "LoRA",
    "patched": "patched",
    "quantized": "quantized",
}


def test_layers_left_alone_have_a_reason():
    """Layers left alone are reported with the reason."""
    model = left_alone()
    model.add(layers.DepthwiseConv2D(1, name="converted"))
    classes = [type(layer) for layer in model.layers[:-1]]
    kd.convert(model, verbose=0)
    assert [type(layer) for layer in model.layers[:-1]] == classes
    assert paths(model) == ["converted"]
    assert reasons(model) == ALONE
    text = str(kd.summary(model))
    for reason in ALONE.values():
        assert REASONS[reason] in " ".join(text.split())


def test_nothing_to_convert_is_one_warning():
    """Nothing to convert is one warning with the reasons."""
    model = left_alone()
    gc.collect()  # what other tests left behind may warn when it is collected
    with pytest.warns(UserWarning, match="nothing to convert") as caught:
        kd.convert(model)
    assert len(caught) == 1
    for reason in ALONE.values():
        assert REASONS[reason] in str(caught[0].message)


@pytest.mark.parametrize(
    ("filters", "chosen"),
    [
        ("^inner/grouped$", ["inner/grouped"]),
        (["separable", "deep/"], ["inner/separable", "inner/deep/depthwise_conv2d"]),
        (lambda layer: isinstance(layer, layers.Conv2D), ["inner/grouped"]),
        (lambda layer: layer.name == "depthwise", ["inner/depthwise"]),
    ],
    ids=["path", "paths", "class", "name"],
)
def test_filters_choose_by_the_reported_path(filters, chosen):
    converted = kd.convert(nested(), filters=filters, verbose=0)
    assert paths(converted) == chosen
    left = set(EXPECTED["nested"]) - set(chosen)
    assert {p for p, why in reasons(converted).items() if why == "filtered"} == left


def test_a_shared_name_means_both_layers():
    """A name that two layers have means both.

    In a subclassed model nothing forbids it.
    """

    class Twice(keras.Model):
        def __init__(self):
            super().__init__()
            self.one = layers.DepthwiseConv2D(1, name="same")
            self.other = layers.DepthwiseConv2D(1, name="same")

        def call(self, inputs):
            return self.other(self.one(inputs))

    model = Twice()
    outputs = to_numpy(model(images()))
    kd.convert(model, filters="^same$", plan="direct", verbose=0)
    assert paths(model) == ["same", "same"]
    np.testing.assert_allclose(to_numpy(model(images())), outputs, atol=1e-5)


def test_converted_again_nothing_changes():
    model = kd.convert(functional(), verbose=0)
    before = facts(model), [type(layer) for layer in model.layers]
    with_nothing_said = kd.convert(model, verbose=0)
    assert with_nothing_said is model
    assert (facts(model), [type(layer) for layer in model.layers]) == before


class PlantedError(Exception):
    """What goes wrong in the middle."""


def planted_in_a_swap(monkeypatch):
    """At the second layer."""
    ours = STOCK_TO_OURS[layers.SeparableConv2D]

    class Cursed(ours):
        @property
        def plan(self):
            raise AttributeError

        @plan.setter
        def plan(self, value):
            raise PlantedError

    monkeypatch.setitem(STOCK_TO_OURS, layers.SeparableConv2D, Cursed)


def planted_in_the_report(monkeypatch):
    def fail(model):
        raise PlantedError

    monkeypatch.setattr(CONVERT, "summary", fail)


def planted_in_the_compiled_functions(monkeypatch):
    calls = []

    def fail(model):
        calls.append(model)
        if len(calls) == 1:
            raise PlantedError

    monkeypatch.setattr(SWAP, "forget_compiled", fail)


@pytest.mark.parametrize(
    "plant",
    [planted_in_a_swap, planted_in_the_report, planted_in_the_compiled_functions],
    ids=lambda plant: plant.__name__,
)
def test_any_failure_leaves_the_model_intact(monkeypatch, plant):
    """Whatever fails, the model is as it was."""
    model = functional()
    model.compile("adam", "mse")
    model.train_on_batch(images(), images())
    before = facts(model), [type(layer) for layer in model.layers]
    outputs = outputs_of(model)
    plant(monkeypatch)
    with pytest.raises(PlantedError):
        kd.convert(model, plan="direct")
    assert (facts(model), [type(layer) for layer in model.layers]) == before
    assert not any(hasattr(layer, "plan") for layer in model.layers)
    np.testing.assert_array_equal(outputs_of(model), outputs)
    model.train_on_batch(images(), images())


def test_failing_filter_leaves_model_intact():
    def fail(layer):
        if layer.name == "grouped":
            raise PlantedError
        return True

    model = functional()
    with pytest.raises(PlantedError):
        kd.convert(model, filters=fail)
    assert paths(model) == []


@both_ways
def test_next_20_steps_equal_stocks(float64, copy):
    """The next 20 steps of a half-trained model equal stock's.

    Checked in the copy, and in place against a copy of stock.
    """

    def fed(step):
        generator = np.random.default_rng(step)
        x = generator.normal(size=(4, *SHAPE))
        return x, generator.normal(size=(4, 10, 10, 4))

    model = functional()
    model.get_layer("separable").trainable = False
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.ExponentialDecay(0.01, 5, 0.9)
    )
    model.compile(optimizer, "mse", metrics=["mae"], jit_compile="auto")
    for step in range(3):
        model.train_on_batch(*fed(step))
    twin = kd.revert(model, copy=True)
    ours = kd.convert(model, plan="direct", copy=copy, verbose=0)
    assert (ours is model) != copy
    for step in range(3, 23):
        for each in (twin, ours):
            each.reset_metrics()
        stock, found = (
            each.train_on_batch(*fed(step), return_dict=True) for each in (twin, ours)
        )
        assert stock.keys() == found.keys() == {"loss", "mae"}
        for name in stock:
            np.testing.assert_allclose(found[name], stock[name], rtol=1e-10)
    assert int(ours.optimizer.iterations) == int(twin.optimizer.iterations) == 23
    for one, other in zip(twin.variables, ours.variables, strict=True):
        np.testing.assert_allclose(
            to_numpy(one.value), to_numpy(other.value), rtol=1e-9, atol=1e-11
        )


def test_output_is_compact_and_plain(capsys):
    inputs = keras.Input(SHAPE)
    x = inputs
    for i in range(20):
        x = layers.DepthwiseConv2D(1, name=f"number_{i}")(x)
        x = layers.Conv2D(4, 1)(x)
    model = keras.Model(inputs, x, name="long")
    kd.convert(model, plan="direct")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.splitlines()[0] == "keras_diagwise: 20 layers of 'long' run by plan"
    assert len(out.splitlines()) <= 6
    for text in ("number_0", "number_19", "direct", "layer", "20 Conv2D"):
        assert text in out
    line = "DepthwiseConv2D → DiagonalwiseDepthwiseConv2D"
    assert line in str(kd.summary(kd.convert(model, verbose=0)))
    kd.convert(model, plan="direct", verbose=2)
    out = capsys.readouterr().out
    assert all(f"number_{i} " in out for i in range(20))
    kd.convert(model, verbose=0)
    assert capsys.readouterr().out == ""


def own_functions():
    """A model with a call that its user compiled, as a method and as an attribute."""
    compiled = {"jax": "jit", "tensorflow": "function", "torch": "compile"}
    backend = keras.backend.backend()
    compile_ = getattr(importlib.import_module(backend), compiled[backend])

    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.inner = layers.DepthwiseConv2D(3, name="inner")

        def call(self, inputs):
            return self.inner(inputs)

    if backend == "tensorflow":
        Own.run = compile_(lambda self, inputs: self(inputs))
    model = Own()
    model(images())
    model.fast = compile_(model.call)
    return model


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Dynamo guards on classes and plans"
)
def test_users_compiled_functions_are_named():
    """Functions that a user compiled are named.

    They keep the plans that they were traced with.
    """
    model = own_functions()
    model.fast(images())
    kd.convert(model, plan="direct", verbose=0)
    found = kd.summary(model)
    assert "own.fast" in found.compiled
    assert len(found.compiled) == (2 if keras.backend.backend() == "tensorflow" else 1)
    text = " ".join(str(found).split())
    assert "You compiled own.fast" in text
    assert kd.summary(nested()).compiled == ()


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow watches operations"
)
@pytest.mark.parametrize(
    "plan", ["direct:compiled", "direct:rows:compiled", "diagonal:2", "native"]
)
def test_xla_gives_way_to_numeric_checks(plan):
    """Code compiled by XLA gives way where numbers are checked.

    Stock trains under `tf.debugging.enable_check_numerics` (issue 19, F14).
    """
    import tensorflow as tf

    model = sequential()
    kd.convert(model, plan=plan, verbose=0)
    model.compile("sgd", "mse", jit_compile=False)
    tf.debugging.enable_check_numerics()
    try:
        targets = np.zeros((3, 4, 4, 4), "float32")
        assert np.isfinite(model.train_on_batch(images(), targets))
        checked = to_numpy(model(images()))
    finally:
        tf.debugging.disable_check_numerics()
    np.testing.assert_allclose(to_numpy(model(images())), checked, atol=1e-5)
