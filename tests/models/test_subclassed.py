"""Models that no graph describes: what a call meets is measured, and the whole model is
checked by its own training step, which leaves no trace."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_diagwise as kd
from keras_diagwise.layers.base import Diagonalwise
from keras_diagwise.models import check
from keras_diagwise.models.copy import duplicated
from tests.fake_runner import traced_plans
from tests.models.walk import Walk

pytestmark = pytest.mark.usefixtures("nothing_known", "runner")

BACKEND = keras.backend.backend()
SHAPE = (8, 8, 4)


@pytest.fixture(autouse=True)
def quick_checks(monkeypatch):
    monkeypatch.setattr(check, "SECONDS_OF_TRIAL", 0.0)
    monkeypatch.setattr(check, "MIN_ROUNDS", 1)
    monkeypatch.setattr(check, "LOSES", float("inf"))


def batch(*shape, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=shape).astype("float32")


class Gan(keras.Model):
    """Two networks with an optimizer each; it has no call of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = Network(name="generator")
        self.discriminator = Network(name="discriminator")
        self.generator(batch(1, *SHAPE))
        self.discriminator(batch(1, *SHAPE))
        self.seen = 0
        self.built = True

    def compile(self, **kwargs):
        if BACKEND == "jax":  # its steps are functions of one optimizer's state
            optimizers = keras.optimizers.OptimizerMap(keras.optimizers.Adam(0.01))
            optimizers["discriminator/.*"] = keras.optimizers.SGD(0.01, momentum=0.9)
            super().compile(keras.optimizers.MultiOptimizer(optimizers), **kwargs)
        else:
            super().compile(**kwargs)
            self.of_generator = keras.optimizers.Adam(0.01)
            self.of_discriminator = keras.optimizers.SGD(0.01, momentum=0.9)

    def losses_of(self, images):
        made = self.generator(images)
        real, fake = self.discriminator(images), self.discriminator(made)
        return ops.mean(ops.square(fake - 1)), ops.mean(ops.square(real - 1) + fake**2)

    def train_step(self, *arguments):
        self.seen += 1
        return {"jax": by_jax, "tensorflow": by_tensorflow, "torch": by_torch}[BACKEND](
            self, *arguments
        )


class Network(keras.Model):
    """Layers within a layer, in no graph."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.DepthwiseConv2D(3, padding="same")
        self.second = layers.DepthwiseConv2D(3, padding="same")
        self.normalize = layers.BatchNormalization()

    def call(self, inputs, training=False):
        return self.second(self.normalize(self.first(inputs), training=training))


def by_jax(self, state, data):
    import jax

    trainable, non_trainable, of_optimizer, of_metrics = state
    images = data[0] if isinstance(data, tuple) else data

    def loss(trainable):
        pairs = [*zip(self.trainable_variables, trainable, strict=True)]
        pairs += [*zip(self.non_trainable_variables, non_trainable, strict=True)]
        with keras.StatelessScope(pairs) as scope:
            losses = self.losses_of(images)
        rest = [scope.get_current_value(v) for v in self.non_trainable_variables]
        return sum(losses), rest

    (value, rest), gradients = jax.value_and_grad(loss, has_aux=True)(trainable)
    trainable, of_optimizer = self.optimizer.stateless_apply(
        of_optimizer, gradients, trainable
    )
    return {"loss": value}, (trainable, rest, of_optimizer, of_metrics)


def by_tensorflow(self, data):
    import tensorflow as tf

    images = data[0] if isinstance(data, tuple) else data
    with tf.GradientTape(persistent=True) as tape:
        of_generator, of_discriminator = self.losses_of(images)
    for network, loss, optimizer in (
        (self.generator, of_generator, self.of_generator),
        (self.discriminator, of_discriminator, self.of_discriminator),
    ):
        variables = network.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
    return {"loss": of_generator}


def by_torch(self, data):
    import torch

    images = data[0] if isinstance(data, tuple) else data
    losses = self.losses_of(images)
    for network, loss, optimizer in zip(
        (self.generator, self.discriminator),
        losses,
        (self.of_generator, self.of_discriminator),
        strict=True,
    ):
        variables = network.trainable_variables
        values = [v.value for v in variables]
        gradients = torch.autograd.grad(loss, values, retain_graph=True)
        with torch.no_grad():
            optimizer.apply(gradients, variables)
    return {"loss": losses[0]}


class OwnStep(Network):
    """Its `train_step` counts, and its loss takes whole numbers as targets."""

    def train_step(self, *arguments):
        self.steps = getattr(self, "steps", 0) + 1
        return super().train_step(*arguments)


class Cell(layers.Layer):
    """A recurrent cell with a depthwise convolution, as of a video."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state_size = self.output_size = int(np.prod(SHAPE))
        self.depthwise = layers.DepthwiseConv2D(3, padding="same")

    def build(self, inputs_shape):
        self.depthwise.build(inputs_shape)

    def call(self, inputs, states):
        outputs = ops.reshape(self.depthwise(inputs), ops.shape(states[0]))
        outputs = ops.tanh(outputs + states[0])
        return outputs, [outputs]


def gan():
    model = Gan()
    model.compile()
    return model, batch(3, *SHAPE)


def own_step():
    model = OwnStep()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model, (batch(3, *SHAPE), np.zeros((3, 8, 8), "int32"))


def recurrent():
    inputs = keras.Input((2, *SHAPE))
    model = keras.Model(inputs, layers.RNN(Cell())(inputs))
    model.compile("adam", "mse")
    return model, (batch(3, 2, *SHAPE), batch(3, 256))


MODELS = {each.__name__: each for each in (gan, own_step, recurrent)}
every = pytest.mark.parametrize("name", MODELS)


def trained(name):
    model, data = MODELS[name]()
    given = data if isinstance(data, tuple) else (data,)
    for _ in range(2):
        model.train_on_batch(*given)
    return model, data


@every
def test_tuning_leaves_the_model_as_it_was(name):
    """A model is measured and checked, and left as it was."""
    model, data = trained(name)
    kd.convert(model, verbose=0)
    before = duplicated(model)
    report = kd.tune(model, data=data, verbose=0)
    assert report.measured > 0
    assert report.skipped == ()
    assert report.model.skipped is None
    assert report.model.stock_seconds > 0
    Walk(before, model)


@every
def test_summary_and_pin_follow_the_data(name):
    """`summary` and `pin` take the problems that the data meet."""
    model, data = trained(name)
    kd.convert(model, verbose=0)
    kd.tune(model, data=data, verbose=0)
    lines = kd.summary(model, data=data)
    assert {str(line.plan) for line in lines} == {"direct"}
    assert {line.problem.batch for line in lines} == {3}
    assert {line.rung for line in lines} == {"decision"}
    kd.pin(model, data=data)
    ours = [each for each in model._flatten_layers() if isinstance(each, Diagonalwise)]
    assert {str(each.plan) for each in ours} == {"direct"}


@every
@pytest.mark.parametrize("moment", range(4))
def test_interrupted_check_changes_nothing(name, moment, monkeypatch):
    """An interrupted check leaves the model as it was."""
    model, data = trained(name)
    kd.convert(model, verbose=0)
    before = duplicated(model)
    calls = []

    class Interrupted(check.Variant):
        def __call__(self):
            result = super().__call__()
            calls.append(1)
            if len(calls) > moment:
                raise KeyboardInterrupt
            return result

    monkeypatch.setattr(check, "Variant", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        kd.tune(model, data=data, verbose=0)
    assert len(calls) == moment + 1
    Walk(before, model)


def test_without_data_the_built_shape_counts():
    """Without data, a called model counts as called on the shape it was built on."""
    model = Network()
    model(batch(2, *SHAPE))
    model.compile("adam", "mse")
    kd.convert(model, verbose=0)
    report = kd.tune(model, batch_size=3, verbose=0)
    assert report.skipped == ()
    assert report.model.skipped is None
    assert {line.problem.batch for line in kd.summary(model, batch_size=3)} == {3}


def test_the_check_runs_stock_and_converted(monkeypatch):
    seen = traced_plans(monkeypatch)
    model, data = own_step()
    kd.convert(model, verbose=0)
    kd.tune(model, data=data, verbose=0)
    assert "direct" in set(seen)


def test_data_that_is_no_batch_is_refused():
    model, _ = own_step()
    with pytest.raises(ValueError, match="`data` must be a batch"):
        kd.tune(model, data=3, verbose=0)
