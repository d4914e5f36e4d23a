"""Candidates that fail, each in its way, and children in which others do.

python -m tests.tuner.planted FAULT FILE_DESCRIPTOR   (a child)
"""

import dataclasses
import os
import signal
import sys
import time
from typing import ClassVar

from keras import ops

from keras_diagwise.algorithms import Algorithm, Direct, Native
from keras_diagwise.problem import PASSES
from keras_diagwise.tuner import subprocess_runner
from keras_diagwise.tuner.runner import Runner


def raise_error(result):
    raise RuntimeError("planted: it can't")


def raise_memory_error(result):
    raise MemoryError("planted: 16 TiB")


def exhaust_resources(result):
    raise RuntimeError("RESOURCE_EXHAUSTED: Failed to allocate 16 TiB")


def hang(result):
    time.sleep(3600)


FAULTS = {
    "none": lambda result: result,
    "wrong": lambda result: result * 1.01,
    "wrong in one place": lambda result: result + one_in_a_corner(result),
    "nan": lambda result: result * float("nan"),
    "another shape": lambda result: ops.concatenate([result, result]),
    "exception": raise_error,
    "memory error": raise_memory_error,
    "resources exhausted": exhaust_resources,
    "killed": lambda result: os.kill(os.getpid(), signal.SIGKILL),
    "abort": lambda result: os.abort(),
    "hang": hang,
    "when timed": lambda result: result,  # see `main`
}

IN_COMPILATION = ("exception", "killed", "abort", "hang")
"""Faults that a candidate shows when it is compiled ahead, too."""


def one_in_a_corner(result):
    corner = ops.zeros_like(result[:1]) + 1
    for axis in range(1, len(result.shape)):
        places = ops.arange(result.shape[axis]) == 0
        shape = [1] * len(result.shape)
        shape[axis] = -1
        corner = corner * ops.cast(ops.reshape(places, shape), result.dtype)
    rest = ops.zeros_like(result[1:])
    return ops.concatenate([corner, rest])


@dataclasses.dataclass(frozen=True)
class Planted(Algorithm):
    """`direct`, but for a fault in the passes of some names.

    Attributes:
        fault: one of `FAULTS`.
        only: the pass that has it; all if none is named.
    """

    fault: str
    only: str = ""

    name = "planted"
    revision = 1
    planted: ClassVar[tuple["Planted", ...]] = ()
    """What `candidates` gives."""

    def compile(self, problem, pass_name):
        if self.fault in IN_COMPILATION and self.only in ("", pass_name):
            FAULTS[self.fault](None)

    def forward(self, problem, inputs, kernel):
        return self._result("forward", problem, inputs, kernel)

    def input_gradient(self, problem, kernel, output_gradient):
        return self._result("input_gradient", problem, kernel, output_gradient)

    def kernel_gradient(self, problem, inputs, output_gradient):
        return self._result("kernel_gradient", problem, inputs, output_gradient)

    def _result(self, pass_name, problem, *operands):
        result = getattr(Direct(), pass_name)(problem, *operands)
        return FAULTS[self.fault](result) if self.only in ("", pass_name) else result

    @classmethod
    def parse(cls, parameters):
        return cls(*parameters)

    @classmethod
    def candidates(cls, problem, pass_name):
        yield from cls.planted

    def __str__(self):
        return ":".join(filter(None, (self.name, self.fault, self.only)))


def abort_when_timed(time_candidates):
    def timed(self, task, candidates, *options):
        if any(str(each) == "planted:when timed" for each in candidates):
            os.abort()
        return time_candidates(self, task, candidates, *options)

    return timed


def wrong(compute):
    """Off for grouped convolutions only: by the dense one the tuner tells how precise
    the backend is."""

    def computed(algorithm, problem, *operands):
        result = compute(algorithm, problem, *operands)
        return result if problem.groups == 1 else result * 1.01

    return computed


def main() -> None:
    fault = sys.argv.pop(1)
    if fault == "native":
        for name in PASSES:
            setattr(Native, name, wrong(getattr(Native, name)))
    elif fault == "when timed":
        Runner.time = abort_when_timed(Runner.time)
    subprocess_runner.main()


if __name__ == "__main__":
    main()
