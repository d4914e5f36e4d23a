"""The layers of every family: stock in everything but how they compute."""

import inspect

import keras
import numpy as np
import pytest

import keras_diagwise as kd
from keras_diagwise import Plan
from keras_diagwise.backends import keras_internals
from keras_diagwise.layers import STOCK_TO_OURS, base
from keras_diagwise.models.swap import assign
from keras_diagwise.problem import PASSES
from tests.strategies import to_numpy

CONVOLUTIONS = {
    stock: ours
    for stock, ours in STOCK_TO_OURS.items()
    if stock is not keras.layers.Dense  # see test_dense
}
PAIRS = pytest.mark.parametrize(
    ("stock", "ours"),
    CONVOLUTIONS.items(),
    ids=[cls.__qualname__ for cls in CONVOLUTIONS.values()],
)
MIXED = Plan(forward="direct", kernel_gradient="diagonal:2:split")
plans = pytest.mark.parametrize(
    "plan", ["auto", "native", "direct", "diagonal:2", MIXED], ids=str
)


def test_a_plan_set_by_hand_is_standardized():
    """A plan that is set on a layer is as one that it was made with: calls, summaries
    and configurations agree."""
    layer = kd.DiagonalwiseDepthwiseConv2D(3)
    for plan, config in (
        ("direct", "direct"),
        (
            {"forward": "direct"},
            {"forward": "direct", **dict.fromkeys(PASSES[1:], "native")},
        ),
        ("auto", "auto"),
    ):
        layer.plan = plan
        assert layer.get_config()["plan"] == config
    with pytest.raises(ValueError, match=r"`plan` must be .*'dirct'"):
        layer.plan = "dirct"
    assert layer.plan == "auto"
    model = keras.Sequential([keras.Input((6, 6, 4)), layer])
    layer.plan = "direct"
    (row,) = kd.summary(model, batch_size=2)
    assert (str(row.plan), row.rung) == ("direct", "layer")
    kd.pin(model, batch_size=2)
    assert layer.plan == Plan("direct", "direct", "direct")


@PAIRS
def test_a_plan_set_on_a_built_layer_is_checked(stock, ours):
    """A partition size that does not fit the channels is refused when it is set, and
    the layer keeps its plans."""
    layer = ours(**needed(stock))
    layer.plan = "diagonal:64"  # of a layer whose channels are not known yet
    layer.plan = "direct"
    layer.build(input_shape(stock))
    for name in ours.PLANS:
        before = getattr(layer, name)
        with pytest.raises(ValueError, match="partition_size"):
            setattr(layer, name, "diagonal:64")
        assert getattr(layer, name) == before
        setattr(layer, name, "diagonal:4")
    assert layer(draw(input_shape(stock))).shape[0] == 2


def test_a_plan_can_be_set_while_a_layer_is_built():
    """A layer may say that it is built before it has a kernel."""

    class Lazy(kd.DiagonalwiseDepthwiseConv2D):
        def build(self, input_shape):
            self.built = True
            self.plan = "direct"
            super().build(input_shape)

    layer = Lazy(3)
    assert layer(draw((1, 5, 5, 4))).shape == (1, 3, 3, 4)
    assert str(layer.plan) == "direct"


def test_a_swap_checks_nothing(monkeypatch):
    """Plans are checked before a swap, which may be part of a step that is timed."""
    layer = kd.DiagonalwiseDepthwiseConv2D(3)
    layer.build((1, 5, 5, 4))
    monkeypatch.setattr(base, "check_plans", None)
    for plan in (Plan(), "auto", Plan("direct")):
        assign(layer, type(layer), {"plan": plan})
        assert layer.plan == plan


SHARED = {
    "kernel_size": 3,
    "strides": 2,
    "padding": "same",
    "data_format": "channels_last",
    "dilation_rate": 1,
    "activation": "relu",
    "use_bias": False,
    "bias_initializer": "ones",
    "bias_regularizer": "l1",
    "activity_regularizer": "l2",
    "bias_constraint": "non_neg",
    "name": "named",
    "trainable": False,
    "dtype": "float32",
}


def kernel_arguments(kind):
    return {
        f"{kind}_initializer": "he_normal",
        f"{kind}_regularizer": keras.regularizers.L2(0.1),
        f"{kind}_constraint": "max_norm",
    }


DEPTHWISE = {"depth_multiplier": 2, **kernel_arguments("depthwise")}
OWN = {
    "DepthwiseConv": DEPTHWISE,
    "SeparableConv": {"filters": 5, **DEPTHWISE, **kernel_arguments("pointwise")},
    "Conv": {"filters": 4, "groups": 2, **kernel_arguments("kernel")},
}
"""What each family's constructor takes beside the shared arguments."""


def own_arguments(stock):
    return OWN[stock.__name__[:-2]]


def needed(stock):
    """The least that a layer is made with, several groups if it can have them."""
    arguments = {"kernel_size": 3}
    for name in ("filters", "groups"):
        if name in own_arguments(stock):
            arguments[name] = own_arguments(stock)[name]
    return arguments


def input_shape(stock, size=7):
    return (2, *((size,) * int(stock.__name__[-2])), 4)


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@PAIRS
def test_takes_every_stock_argument(stock, ours):
    """A layer takes every argument of the stock layer, and adds only plans."""
    arguments = {**SHARED, **own_arguments(stock)}
    stock_arguments = set(inspect.signature(stock).parameters) - {"kwargs"}
    assert stock_arguments <= set(arguments)
    assert set(inspect.signature(ours).parameters) - {
        "kwargs"
    } == stock_arguments.union(ours.PLANS)
    config = ours(**arguments, **dict.fromkeys(ours.PLANS, MIXED)).get_config()
    for name in ours.PLANS:
        assert config.pop(name) == {
            "forward": "direct",
            "input_gradient": "native",
            "kernel_gradient": "diagonal:2:split",
        }
    assert config == stock(**arguments).get_config()
    positional = [4, 3, 2, "same"] if "filters" in arguments else [3, 2, "same"]
    assert ours(*positional).strides == stock(*positional).strides


@PAIRS
@plans
def test_config_round_trips(stock, ours, plan):
    layer = ours(**needed(stock), plan=plan)
    assert ours.from_config(layer.get_config()).plan == layer.plan
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert type(again) is ours
    assert again.plan == layer.plan
    assert again.get_config() == layer.get_config()


@PAIRS
def test_names_are_the_stock_ones(stock, ours):
    assert ours.__name__ == stock.__name__
    assert ours.__qualname__ == f"Diagonalwise{stock.__name__}"
    assert getattr(kd, ours.__qualname__) is ours
    assert (
        keras.saving.get_registered_name(ours) == f"keras_diagwise>{ours.__qualname__}"
    )
    first = stock(**needed(stock)).name
    keras.utils.clear_session(free_memory=False)
    assert ours(**needed(stock)).name == first


@PAIRS
def test_weights_are_the_stock_ones(stock, ours):
    built = [cls(**needed(stock)) for cls in (stock, ours)]
    for layer in built:
        layer.build(input_shape(stock))
    one, other = (
        [(w.name, w.shape, w.trainable) for w in layer.weights] for layer in built
    )
    assert one == other


def backend_and_keras_lack_channels_first(stock):
    """Keras leaves depthwise convolutions to TensorFlow, which has none on CPU."""
    return (
        keras.backend.backend() == "tensorflow"
        and keras_internals.VERSION < (3, 15)
        and own_arguments(stock) is not OWN["Conv"]
    )


@PAIRS
@pytest.mark.parametrize(
    ("plan", "arguments"),
    [
        ("auto", {}),
        ("direct", {"strides": 2, "padding": "same", "activation": "tanh"}),
        (MIXED, {"dilation_rate": 2, "use_bias": False}),
        ("diagonal:2", {"data_format": "channels_first", "padding": "same"}),
    ],
    ids=str,
)
def test_outputs_and_a_step_match_stock(float64, stock, ours, plan, arguments):
    """Outputs and one training step are the stock layer's.

    A step of SGD at rate 1 leaves the gradient of each weight.
    """
    shape = input_shape(stock)
    if arguments.get("data_format") == "channels_first":
        if backend_and_keras_lack_channels_first(stock):
            pytest.skip(
                "stock takes channels last only on TensorFlow before Keras 3.15"
            )
        shape = (shape[0], shape[-1], *shape[1:-1])
    initial = {"bias_initializer": "random_normal"} if not arguments else {}
    layers = [
        stock(**needed(stock), **arguments, **initial),
        ours(**needed(stock), **arguments, **initial, plan=plan),
    ]
    models = [keras.Sequential([keras.Input(shape[1:]), layer]) for layer in layers]
    models[1].set_weights(models[0].get_weights())
    inputs = draw(shape)
    found = []
    for model in models:
        model.compile(keras.optimizers.SGD(1.0), "mse")
        outputs = to_numpy(model(inputs))
        model.train_on_batch(inputs, draw(outputs.shape, 1))
        found.append([outputs, *model.get_weights()])
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype == np.float64
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-11)


@PAIRS
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float32"])
def test_dtype_policies_are_obeyed(stock, ours, policy):
    inputs = np.ones(input_shape(stock), "float32")
    for plan in ("native", "direct", "diagonal:2"):
        layer = ours(**needed(stock), plan=plan, dtype=policy)
        outputs = layer(inputs)
        assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype
        assert {weight.dtype for weight in layer.weights} == {"float32"}


@PAIRS
def test_oversized_partition_fails_at_build(stock, ours):
    """A partition size above the number of channels is refused at build."""
    layer = ours(**needed(stock), plan="diagonal:8")
    with pytest.raises(ValueError, match="partition_size=8"):
        layer.build(input_shape(stock))
    assert not layer.built


@PAIRS
def test_an_unknown_plan_is_refused(stock, ours):
    with pytest.raises(ValueError, match="fastest"):
        ours(**needed(stock), plan="fastest")


@PAIRS
def test_a_model_of_any_image_size_trains(stock, ours):
    """Nothing but the channels is known when it is built, and a size is met later."""
    shape = (*((None,) * int(stock.__name__[-2])), 4)
    model = keras.Sequential(
        [keras.Input(shape), ours(**needed(stock), padding="same")]
    )
    model.compile("sgd", "mse")
    for size in (5, 6):
        inputs = draw(input_shape(stock, size))
        outputs = model.predict(inputs, verbose=0)
        model.fit(inputs, outputs + 1, verbose=0)
    assert np.isfinite(model.get_weights()[0]).all()
