"""Trains the network stock and converted under a strategy of `tf.distribute`, and
prints what was found as JSON.

python -m tests.engines.tensorflow_worker mirrored | workers
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

import keras_diagwise as kd
from keras_diagwise import backends
from tests.engines.network import IMAGES, batches, compiled, network


def main(kind):
    strategy = make(kind)
    with strategy.scope():
        stocks, ours = trained(strategy, False), trained(strategy, True)
        planned = kd.summary(network(True), batch_size=IMAGES)
    print(
        json.dumps(
            {
                "replicas": strategy.num_replicas_in_sync,
                "stock": stocks,
                "converted": ours,
                "traced_batches": sorted(
                    {each.problem.batch for each in SEEN}, key=str
                ),
                "planned_batches": sorted({line.problem.batch for line in planned}),
                "plans": sorted({str(each.plan) for each in SEEN}),
            }
        )
    )


def make(kind):
    if kind == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy()
    (device,) = tf.config.list_physical_devices("CPU")
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(device, halves)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


SEEN = []


def spy(differentiable):
    def spied(convolution, *operands):
        SEEN.append(convolution)
        return differentiable(convolution, *operands)

    return spied


def trained(strategy, converted):
    """The loss of each step, and the weights at the end."""
    model = compiled(network(converted), jit_compile=False)
    train = by_hand if is_of_workers(strategy) else by_fit
    losses = train(strategy, model)
    weights = [keras.ops.convert_to_numpy(v.value).tolist() for v in model.variables]
    return losses, weights


def is_of_workers(strategy):
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def images_and_classes():
    images, classes = (np.concatenate(each) for each in zip(*batches(), strict=True))
    data = tf.data.Dataset.from_tensor_slices((images, classes))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return data.batch(IMAGES, drop_remainder=True).with_options(options)


def by_fit(strategy, model):
    losses = Losses()
    model.fit(images_and_classes(), shuffle=False, verbose=0, callbacks=[losses])
    return losses.found


def by_hand(strategy, model):
    """Not by `fit`, which takes no batches of several workers (seen in Keras 3.15)."""

    def step(images, classes):
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            each = keras.ops.sparse_categorical_crossentropy(
                classes, outputs, from_logits=True
            )
            loss = keras.ops.sum(each) / IMAGES
        gradients = tape.gradient(loss, model.trainable_weights)
        model.optimizer.apply(gradients, model.trainable_weights)
        return loss

    @tf.function
    def step_of_all(images, classes):
        losses = strategy.run(step, args=(images, classes))
        return strategy.reduce("SUM", losses, axis=None)

    data = strategy.experimental_distribute_dataset(images_and_classes())
    return [float(step_of_all(*batch)) for batch in data]


class Losses(keras.callbacks.Callback):
    """The mean loss so far, after each step."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(float(logs["loss"]))


if __name__ == "__main__":
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    backends.active.differentiable = spy(backends.active.differentiable)
    main(sys.argv[1])
