"""Times each pass by `diagonal` against the partition size, beside native and direct.

    python -m tuning.partition_sizes [--batch 4] [--dtype float32]

Runs `diagonal:<partition size>:split`, on a GPU `diagonal:<partition size>` too, for
every power of two up to all channels. Writes
tuning/results/partition-sizes-<backend>-<compiler mode>.json; for a GPU into the
device's folder, by dtype, where an existing file stays. The file records the load of
the machine: where it exceeds the cores, only the ratios are meaningful.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import os
import statistics

import keras

from keras_diagwise import backends
from keras_diagwise.algorithms import parse
from keras_diagwise.models.environment import environment_of
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.tuner import verify
from keras_diagwise.tuner.measure import interleaved
from keras_diagwise.tuner.roofline import measure_roofline
from keras_diagwise_cli.diagnosis.nvidia import has_driver
from tuning.records import RESULTS, device_folder, results_name, write
from tuning.workloads import square

SIZE, CHANNELS, KERNEL = 28, 128, 3
SIZES = [2**i for i in range(CHANNELS.bit_length())]
CANDIDATES = ["native", "direct", *(f"diagonal:{size}:split" for size in SIZES)]
if has_driver():
    CANDIDATES += [f"diagonal:{size}" for size in SIZES]


def measured(problem: Problem, pass_name: str, environment) -> dict[str, float]:
    """Median seconds of each candidate, timed interleaved."""
    runs = {
        name: backends.active.compiled(
            functools.partial(getattr(parse(name), pass_name), problem),
            environment.compiler_mode,
        )
        for name in CANDIDATES
    }
    operands = verify.operands(problem, pass_name, 0)
    samples = interleaved(runs, operands, seconds=8.0, min_rounds=9)
    return {
        name: float(f"{statistics.median(taken):.4g}")
        for name, taken in samples.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--stop-after", type=float, help="not heeded: it is short")
    options = parser.parse_args()
    environment = environment_of(keras.Sequential([keras.Input((4,))]))
    path = RESULTS / results_name("partition-sizes", environment)
    if environment.device_kind != "cpu":
        folder = device_folder(environment.to_dict())
        path = folder / f"{path.stem}-{options.dtype}.json"
        if path.exists():
            return
    problem = square(SIZE, CHANNELS, KERNEL, batch=options.batch, dtype=options.dtype)
    roofline = measure_roofline(environment.compiler_mode, problem.dtype)
    result = {
        "date": datetime.date.today().isoformat(),
        "environment": environment.to_dict(),
        "load_average": round(os.getloadavg()[0], 1),
        "problem": problem.to_dict(),
        "least": float(f"{roofline.seconds(problem):.4g}"),
        "flops": {name: parse(name).work(problem).flops for name in CANDIDATES},
        "seconds": {},
    }
    for pass_name in PASSES:
        result["seconds"][pass_name] = measured(problem, pass_name, environment)
        print(pass_name, result["seconds"][pass_name], flush=True)
    write(path, result)


if __name__ == "__main__":
    main()
