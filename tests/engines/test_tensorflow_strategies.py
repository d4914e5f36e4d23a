"""TensorFlow under `tf.distribute`: two replicas on a device, and two worker processes
of one each. The numbers are stock's, and a problem is a replica's."""

import json

import keras
import pytest

from tests.engines.network import IMAGES, assert_same_training
from tests.engines.processes import ended, free_ports, started

WORKER = "tests.engines.tensorflow_worker"

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
)


def assert_as_stock(found):
    assert found["replicas"] == 2
    assert_same_training(found["stock"], found["converted"])
    assert found["traced_batches"] == [IMAGES // 2]
    assert found["planned_batches"] == [IMAGES // 2]
    assert "direct" in found["plans"]


def test_mirrored_replicas_train_as_stock():
    (found,) = ended([started(WORKER, "mirrored")])
    assert_as_stock(found)


def test_mirrored_workers_train_as_stock():
    addresses = [f"localhost:{port}" for port in free_ports(2)]
    found = ended(
        started(WORKER, "workers", TF_CONFIG=json.dumps(config(addresses, n)))
        for n in range(2)
    )
    for each in found:
        assert_as_stock(each)


def config(addresses, index):
    """What a worker is told of its cluster."""
    task = {"type": "worker", "index": index}
    return {"cluster": {"worker": addresses}, "task": task}
