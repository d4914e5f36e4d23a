"""TensorFlow under `tf.distribute`: two replicas on a device, and two worker processes
of one each. The numbers are stock's, and a problem is a replica's."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from tests.engines.network import IMAGES, assert_same_training

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
)

ROOT = Path(__file__).parents[2]
SECONDS = 400.0
"""What a process may take before it is taken to hang."""


def started(kind, **variables):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.engines.tensorflow_worker", kind],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **variables},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    """What a process has found."""
    try:
        said, complaints = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, complaints
    return json.loads(said.splitlines()[-1])


def free_addresses(count):
    """Addresses on this machine that nobody listens at."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return [f"localhost:{port}" for port in ports]


def assert_as_stock(found):
    assert found["replicas"] == 2
    assert_same_training(found["stock"], found["converted"])
    assert found["traced_batches"] == [IMAGES // 2]
    assert found["planned_batches"] == [IMAGES // 2]
    assert "direct" in found["plans"]


def test_mirrored_replicas_train_as_stock():
    assert_as_stock(ended(started("mirrored")))


def test_mirrored_workers_train_as_stock_and_alike():
    cluster = {"worker": free_addresses(2)}
    workers = [
        started(
            "workers",
            TF_CONFIG=json.dumps(
                {"cluster": cluster, "task": {"type": "worker", "index": n}}
            ),
        )
        for n in range(2)
    ]
    try:
        one, other = map(ended, workers)
    finally:
        for each in workers:
            each.kill()
    assert_as_stock(one)
    assert one == other
