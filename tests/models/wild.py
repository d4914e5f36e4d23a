"""Models as people write them, each with something that no configuration holds.

Each function makes a compiled model that takes images of `SHAPE` and was trained a
little, so that it has a state.
"""

from __future__ import annotations

import types

import keras
import numpy as np
from keras import layers, ops

BACKEND = keras.backend.backend()
SHAPE = (8, 8, 4)
Depthwise = layers.DepthwiseConv2D


def batch(seed=0, size=3):
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(size, *SHAPE)).astype("float32")
    return images, generator.normal(size=(size, 6, 6, 4)).astype("float32")


def small(*after, **arguments):
    inputs = keras.Input(SHAPE)
    outputs = Depthwise(3, name="depthwise", **arguments)(inputs)
    for layer in after:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name="small")


def compiled(model, optimizer="adam", **arguments):
    model.compile(optimizer, "mse", **arguments)
    return model


class Block(layers.Layer):
    """Layers of stock within one of a user's own, with automatic names."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.depthwise = Depthwise(3)
        self.normalize = layers.BatchNormalization()
        self.drop = layers.Dropout(0.5, seed=3)
        self.dilated = Depthwise(3, padding="same")

    def call(self, inputs, training=False):
        outputs = self.normalize(self.depthwise(inputs), training=training)
        return self.dilated(self.drop(outputs, training=training))


class Holder(layers.Layer):
    """Holds in every way what the numbers depend on."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._gain = 1.0
        self.factors = {"a": [1.0, 2.0], "b": (3.0,)}
        self.table = np.ones(4, "float32")
        self.view = self.table[2:]
        self.initializers = (keras.initializers.Zeros(), keras.initializers.Ones())
        self.depthwise = Depthwise(3)

    def call(self, inputs):
        outputs = self.depthwise(inputs) * self._gain * self.factors["a"][0]
        return outputs * ops.convert_to_tensor(self.table)


class Own(keras.Model):
    """A subclassed model whose layers have automatic names, one a `Sequential` that
    knows no input."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.net = keras.Sequential([Depthwise(3), layers.Dropout(0.5)])
        self.seen = []

    def call(self, inputs, training=False):
        return self.net(inputs, training=training)


class OwnTrainFunction(keras.Model):
    """Its `make_train_function` takes no `force`."""

    def make_train_function(self):
        super().make_train_function()
        return self.train_function


class Decay(keras.optimizers.schedules.LearningRateSchedule):
    """Its configuration is not all that it has."""

    def __init__(self):
        self.rate = 0.1

    def __call__(self, step):
        return self.rate / (1.0 + ops.cast(step, "float32"))

    def get_config(self):
        return {}


def optimizer_as_attribute():
    model = compiled(small())
    model.another = keras.optimizers.Adam(0.01)
    model.another.build(model.trainable_variables)
    gradients = [ops.ones_like(v.value) for v in model.trainable_variables]
    model.another.apply(gradients, model.trainable_variables)
    return model


def spared_from_decay(wrap):
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return compiled(small(bias_initializer="ones"), wrap(optimizer))


def spared_in_loss_scale():
    return spared_from_decay(keras.optimizers.LossScaleOptimizer)


def spared_by_variable():
    model = small(bias_initializer="ones")
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[model.trainable_variables[1]])
    return compiled(model, optimizer)


def regularizer_set_later():
    model = small()
    layer = model.get_layer("depthwise")
    layer.depthwise_regularizer = keras.regularizers.L2(10.0)
    layer.kernel.regularizer = keras.regularizers.L1(5.0)
    return compiled(model)


def constraint_set_later():
    model = small()
    model.get_layer("depthwise").kernel.constraint = keras.constraints.NonNeg()
    return compiled(model)


def changed_inside_a_block():
    inputs = keras.Input(SHAPE)
    block = Block()
    model = keras.Model(inputs, block(inputs))
    block.normalize.momentum = 0.5
    block.drop.rate = 0.25
    block.dilated.dilation_rate = (2, 2)
    return compiled(model)


def attributes_of_every_type():
    inputs = keras.Input(SHAPE)
    holder = Holder()
    model = keras.Model(inputs, holder(inputs))
    holder._gain = 3.0
    holder.factors["a"][0] = 0.5
    holder.table[2:] = 2.0
    return compiled(model)


def method_replaced():
    model = small()

    def compute_loss(self, *args, **kwargs):
        return 1000.0 + 0 * sum(ops.sum(w) for w in self.trainable_variables)

    model.compute_loss = types.MethodType(compute_loss, model)
    return compiled(model)


def loss_closes_over_the_model():
    model = small()

    def loss(y_true, y_pred):
        weights = model.trainable_variables
        return ops.mean((y_true - y_pred) ** 2) + sum(ops.sum(w**2) for w in weights)

    model.compile("sgd", loss)
    return model


def state_of_the_backend():
    class Scale(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            if BACKEND == "tensorflow":
                import tensorflow as tf

                self.scale = tf.Variable(3.0, trainable=False)
            elif BACKEND == "torch":
                import torch

                self.scale = torch.nn.Parameter(torch.tensor(3.0, dtype=torch.float32))
            else:
                self.scale = ops.convert_to_tensor(3.0, "float32")

        def call(self, inputs):
            return inputs * ops.cast(ops.convert_to_tensor(self.scale), inputs.dtype)

    return compiled(small(Scale()))


def no_autocast():
    after = layers.Rescaling(0.1, dtype="mixed_bfloat16", autocast=False)
    return compiled(small(after))


def schedule_with_more_than_its_config():
    schedule = Decay()
    schedule.rate = 0.02
    return compiled(small(), keras.optimizers.SGD(schedule, momentum=0.9))


def attributes_on_a_functional():
    model = compiled(small())
    model.class_names = ["cat", "dog"]
    model.history = model.fit(*batch(), verbose=0)
    return model


def automatic_names():
    model = Own(name="own")
    model(batch()[0])
    return compiled(model)


def not_built():
    return compiled(Own())


def under_another_policy():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return compiled(small())
    finally:
        keras.config.set_dtype_policy(before)


def quantized_to_float8():
    model = small(layers.Dense(4))
    model.quantize("float8")
    return compiled(model)


def own_train_function():
    inputs = keras.Input(SHAPE)
    return compiled(OwnTrainFunction(inputs, Depthwise(3)(inputs)))


def lambdas():
    scale = np.array([2.0], "float32")
    double = layers.Lambda(lambda x: x * ops.convert_to_tensor(scale))
    return compiled(small(double, layers.Lambda(lambda x: x + 1)))


def metrics_and_seeds():
    after = (layers.Dropout(0.5), layers.GaussianNoise(0.1, seed=5))
    metrics = ["mae", keras.metrics.MeanSquaredError("other")]
    return compiled(small(*after), "rmsprop", metrics=metrics, weighted_metrics=["mae"])


def several_optimizers():
    if not hasattr(keras.optimizers, "MultiOptimizer"):
        return compiled(small())
    model = small(layers.Conv2D(4, 1, name="dense"))
    by_path = keras.optimizers.OptimizerMap(keras.optimizers.AdamW(0.1))
    by_path["dense/.*"] = keras.optimizers.SGD(0.1, momentum=0.9)
    return compiled(model, keras.optimizers.MultiOptimizer(by_path))


def recurrent():
    inputs = keras.Input((2, *SHAPE))
    spread = layers.TimeDistributed(Depthwise(3))(inputs)
    return keras.Model(inputs, layers.GRU(3)(layers.Reshape((2, -1))(spread)))


def hooked():
    """Of torch: on a module and on a parameter."""
    model = small()
    if BACKEND == "torch":
        layer = model.get_layer("depthwise")
        calls = []
        layer.register_forward_hook(lambda *args: calls.append(1) or args[2] * 2)
        layer.kernel.value.register_hook(lambda gradient: gradient * 0.5)
    return compiled(model)


MODELS = {
    each.__name__: each
    for each in (
        *(optimizer_as_attribute, spared_in_loss_scale, spared_by_variable),
        *(regularizer_set_later, constraint_set_later, changed_inside_a_block),
        *(attributes_of_every_type, method_replaced, loss_closes_over_the_model),
        *(state_of_the_backend, no_autocast, schedule_with_more_than_its_config),
        *(attributes_on_a_functional, automatic_names, not_built),
        *(under_another_policy, quantized_to_float8, own_train_function, lambdas),
        *(metrics_and_seeds, several_optimizers, hooked),
    )
}
