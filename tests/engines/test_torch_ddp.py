"""torch under `DistributedDataParallel`, in two and in four processes: the numbers are
stock's, and a problem is a process's."""

import keras
import pytest

from tests.engines.network import IMAGES, assert_same_training
from tests.engines.processes import ended, free_ports, started

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="DistributedDataParallel is torch's"
)


@pytest.mark.parametrize("count", [2, 4])
def test_processes_train_as_stock(count):
    (port,) = free_ports(1)
    found = ended(
        started(
            "tests.engines.torch_worker",
            RANK=str(rank),
            WORLD_SIZE=str(count),
            MASTER_ADDR="localhost",
            MASTER_PORT=str(port),
        )
        for rank in range(count)
    )
    for each in found:
        assert each["processes"] == count
        assert_same_training(each["stock"], each["converted"])
        assert each["traced_batches"] == [IMAGES // count]
        assert "direct" in each["plans"]
