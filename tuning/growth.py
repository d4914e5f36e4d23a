"""Times each pass against batch, channels, pixels and kernel, under this device's plan.

    python -m tuning.growth

Writes tuning/results/growth-<backend>-<compiler mode>.json; `docs.build` draws it.

The step between tensors of 26 and 51 MB on a CPU comes from glibc, which returns blocks
of more than 32 MB at once, so that each page is faulted in again at the next call: a
forward pass on 128×28×28×128 took 52 ms with 27,000 page faults, and 16 ms with 2,900
under MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184
MALLOC_TOP_PAD_=1073741824 (a copy: 15 and 3 ms).
"""

from __future__ import annotations

import functools
import statistics

import keras

from keras_diagwise import backends
from keras_diagwise.models.environment import environment_of
from keras_diagwise.ops import dispatcher
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.tuner import verify
from keras_diagwise.tuner.measure import interleaved
from keras_diagwise.tuner.roofline import measure_roofline
from tuning.records import results_name, write
from tuning.workloads import square

SIZE, CHANNELS, KERNEL = 28, 128, 3

AXES = {
    "batch": [square(SIZE, CHANNELS, KERNEL, batch=2**i) for i in range(9)],
    "channels": [square(SIZE, 2**i, KERNEL) for i in range(4, 12)],
    "pixels": [square(7 * 2**i, CHANNELS, KERNEL, batch=4) for i in range(6)],
    "kernel": [
        square(SIZE, CHANNELS, kernel, batch=4)
        for kernel in (3, 5, 7, 9, 11, 13, 15, 19, 23, 27, 31)
    ],
}

AT = {
    "batch": lambda problem: problem.batch,
    "channels": lambda problem: problem.channels,
    "pixels": lambda problem: problem.spatial_shape[0] ** 2,
    "kernel": lambda problem: problem.taps,
}


def measured(problem: Problem, environment, roofline) -> dict:
    """Seconds of each pass of a problem by its plan, and its roofline."""
    plan = dispatcher.answer(problem, "auto", environment).plan
    seconds = {}
    for name in PASSES:
        run = functools.partial(getattr(plan[name], name), problem)
        compiled = backends.active.compiled(run, environment.compiler_mode)
        operands = verify.operands(problem, name, 0)
        taken = interleaved({name: compiled}, operands, seconds=0.5, min_rounds=5)
        seconds[name] = float(f"{statistics.median(taken[name]):.4g}")
    return {
        "plan": str(plan),
        "seconds": seconds,
        "least": float(f"{roofline.seconds(problem):.4g}"),
        "bytes": problem.least_bytes,
        "flops": problem.flops,
    }


def measure() -> None:
    environment = environment_of(keras.Sequential([keras.Input((4,))]))
    roofline = measure_roofline(environment.compiler_mode, "float32")
    result: dict = {
        "environment": environment.to_dict(),
        "flops_per_second": roofline.flops_per_second,
        "axes": {},
    }
    for axis, problems in AXES.items():
        points = result["axes"][axis] = []
        for problem in problems:
            points.append(
                {"at": AT[axis](problem), **measured(problem, environment, roofline)}
            )
            print(problem, points[-1]["seconds"], flush=True)
    write(results_name("growth", environment), result)


if __name__ == "__main__":
    measure()
