"""Any model as people make it: graphs within layers of their own, several optimizers,
attributes set later, replaced methods, hooks.

In place its next steps are stock's bit by bit; its copy differs in nothing and shares
nothing. `HYPOTHESIS_PROFILE=long` draws 500 models.
"""

import types

import hypothesis
import keras
import numpy as np
from hypothesis import strategies as st

import keras_diagwise as kd
from keras_diagwise.models.copy import duplicated
from keras_diagwise.models.problems import layers_to_convert
from tests.models.test_graphs import SHAPE, apply, graphs
from tests.models.walk import Walk

BACKEND = keras.backend.backend()

values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(max_size=4),
        st.builds(lambda n: np.arange(n, dtype="float32"), st.integers(0, 4)),
        st.builds(lambda: keras.initializers.HeNormal(seed=1)),
        st.builds(lambda: keras.regularizers.L2(0.25)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
    max_leaves=5,
)

OPTIMIZERS = ("sgd", "momentum", "adam", "spared", "scaled", "several", "attribute")
CHANGES = ("nothing", "regularizer", "constraint", "frozen", "loss", "closure", "hook")


class Wrapper(keras.Model):
    """A model of one's own around a graph, which it holds in a list."""

    def __init__(self, inner):
        super().__init__(name="wrapper")
        self.held = [inner]
        self.seen = {"calls": []}

    def call(self, inputs, training=False):
        return self.held[0](inputs, training=training)


def made(graph, is_wrapped):
    inputs = keras.Input(SHAPE)
    outputs = apply(graph, inputs)
    model = keras.Model(inputs, keras.layers.Dropout(0.25, seed=7)(outputs))
    if not is_wrapped:
        return model
    model = Wrapper(model)
    model(batch()[0])
    return model


def batch(seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(2, *SHAPE)).astype("float32") for _ in range(2)]


def optimizer_of(kind):
    optimizers = keras.optimizers
    adam_w = optimizers.AdamW(0.01, weight_decay=0.1)
    adam_w.exclude_from_weight_decay(var_names=["bias"])
    if kind == "several":
        by_path = optimizers.OptimizerMap(adam_w)
        by_path[".*bias"] = optimizers.SGD(0.01, momentum=0.5)
        return optimizers.MultiOptimizer(by_path)
    return {
        "sgd": lambda: optimizers.SGD(optimizers.schedules.CosineDecay(0.01, 9)),
        "momentum": lambda: optimizers.SGD(0.01, momentum=0.9, nesterov=True),
        "adam": lambda: optimizers.Adam(0.01, clipnorm=1.0, use_ema=True),
        "spared": lambda: adam_w,
        "scaled": lambda: optimizers.LossScaleOptimizer(adam_w),
        "attribute": lambda: optimizers.RMSprop(0.01),
    }[kind]()


def change(model, kind):
    """Something that is set on a model after it was made."""
    variables = model.trainable_variables
    if kind == "regularizer":
        variables[0].regularizer = keras.regularizers.L1(0.5)
    elif kind == "constraint":
        variables[-1].constraint = keras.constraints.MaxNorm(0.5)
    elif kind == "frozen":
        first = next(each for each in model._flatten_layers() if each.variables)
        first.trainable = False
    elif kind == "loss":

        def compute_loss(self, *arguments, **options):
            loss = type(self).compute_loss(self, *arguments, **options)
            return loss + sum(keras.ops.sum(w**2) for w in self.trainable_variables)

        model.compute_loss = types.MethodType(compute_loss, model)
    elif kind == "hook" and BACKEND == "torch":
        first = next(each for each in model._flatten_layers() if each.variables)
        first.register_forward_hook(lambda layer, inputs, outputs: outputs * 1.5)
        if variables:
            variables[0].value.register_hook(lambda gradient: gradient * 0.5)


def loss_of(model, kind):
    def loss(y_true, y_pred):
        weights = model.trainable_variables
        penalty = sum(keras.ops.sum(keras.ops.abs(w)) for w in weights)
        return keras.ops.mean((y_true - y_pred) ** 2) + 0.1 * penalty

    return loss if kind == "closure" else "mse"


def everything(model):
    """Every number that a step changes."""
    found = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    if hasattr(model, "another"):
        found += model.another.variables
    return [keras.ops.convert_to_numpy(each.value).tobytes() for each in found]


def trained(model, seed, steps=2):
    losses = []
    for step in range(steps):
        keras.utils.set_random_seed(seed + step)
        losses.append(model.train_on_batch(*batch(seed + step)))
    return np.array(losses).tobytes()


@hypothesis.given(
    graph=graphs,
    is_wrapped=st.booleans(),
    optimizer=st.sampled_from(OPTIMIZERS),
    changed=st.sampled_from(CHANGES),
    attributes=st.lists(values, max_size=3),
    data=st.data(),
)
@hypothesis.settings(max_examples=max(4, hypothesis.settings().max_examples // 4))
def test_any_model(graph, is_wrapped, optimizer, changed, attributes, data):
    keras.utils.clear_session(free_memory=False)
    model = made(graph, is_wrapped)
    hypothesis.assume(model.trainable_variables and layers_to_convert(model))
    change(model, changed)
    hypothesis.assume(model.trainable_variables)
    model.compile(optimizer_of(optimizer), loss_of(model, changed), metrics=["mae"])
    trained(model, 0, steps=1)
    layers = model._flatten_layers()
    for i, attribute in enumerate(attributes):
        setattr(data.draw(st.sampled_from(layers)), f"_of_mine_{i}", attribute)
    if optimizer == "attribute":
        model.another = keras.optimizers.Adam(0.01)
        model.another.build(model.trainable_variables)
    copy = duplicated(model)
    Walk(model, copy)
    before = everything(model)
    losses = trained(copy, 5)
    assert everything(model) == before
    assert kd.convert(model, plan="native", verbose=0) is model
    assert everything(model) == before
    if has_groups_on_tensorflow(model):
        return
    assert trained(model, 5) == losses
    assert everything(model) == everything(copy)


def has_groups_on_tensorflow(model):
    """Whether native is another operation than Keras's, by which nothing is compiled
    apart, and its numbers are rounded otherwise."""
    groups = [getattr(each, "groups", 1) for each in model._flatten_layers()]
    return BACKEND == "tensorflow" and max(groups) > 1
