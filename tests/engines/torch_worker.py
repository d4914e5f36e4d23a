"""Trains the network stock and converted under `DistributedDataParallel`, as one of
several processes, and prints what was found as JSON.

python -m tests.engines.torch_worker   (with the variables that torchrun sets)
"""

import json
import os

import keras
import numpy as np
import torch
from keras.src.backend.common import dtypes
from torch.nn.parallel import DistributedDataParallel

from keras_diagwise import backends
from tests import interpreter  # noqa: F401, for kernels on a CPU
from tests.engines.network import IMAGES, STEPS, batches, network

SEEN = []


def main():
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    stocks, ours = trained(False), trained(True)
    torch.distributed.destroy_process_group()
    found = {
        "processes": int(os.environ["WORLD_SIZE"]),
        "stock": stocks,
        "converted": ours,
        "traced_batches": sorted({each.problem.batch for each in SEEN}),
        "plans": sorted({str(each.plan) for each in SEEN}),
    }
    print(json.dumps(found))


def trained(converted):
    """The loss of each step, and the weights at the end."""
    model = network(converted, os.environ.get("PLAN"))
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    losses = []
    for images, classes in batches(int(os.environ.get("STEPS", STEPS))):
        outputs = parallel(share_of(images), training=True)
        loss = torch.nn.functional.cross_entropy(outputs, share_of(classes).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    weights = [v.value.detach().numpy().tolist() for v in model.variables]
    return losses, weights


def share_of(values):
    """This process's part of a batch."""
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    part = IMAGES // count
    return torch.from_numpy(np.ascontiguousarray(values[part * rank :][:part]))


def spy(differentiable):
    def spied(convolution, *operands):
        SEEN.append(convolution)
        return differentiable(convolution, *operands)

    return spied


if __name__ == "__main__":
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"  # see tests/conftest.py
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    backends.active.differentiable = spy(backends.active.differentiable)
    main()
