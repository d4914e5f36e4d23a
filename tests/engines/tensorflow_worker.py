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
        stocks, ours = trained(False), trained(True)
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


def trained(converted):
    """The loss of each step, and the weights at the end."""
    model = compiled(network(converted), jit_compile=False)
    steps = batches()
    images, classes = (np.concatenate(each) for each in zip(*steps, strict=True))
    losses = Losses()
    data = tf.data.Dataset.from_tensor_slices((images, classes)).batch(
        IMAGES, drop_remainder=True
    )
    model.fit(data, epochs=1, shuffle=False, verbose=0, callbacks=[losses])
    weights = [keras.ops.convert_to_numpy(v.value).tolist() for v in model.variables]
    return losses.found, weights


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
