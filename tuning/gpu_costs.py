"""Fits the cost model of `triton` to machine code, compiled without a device.

    python -m tuning.gpu_costs [--compile]

The instruction counts of a few hundred programs for sm_90, and the core seconds to
compile each, are lines of tuning/results/gpu-costs.jsonl; `--compile` adds missing
ones. Prints the coefficients for `FITS` in algorithms/triton/cost.py and writes their
errors to tuning/results/gpu-costs.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from keras_diagwise.algorithms import Triton
from keras_diagwise.algorithms.triton import cost
from keras_diagwise.algorithms.triton.cost import Fit
from keras_diagwise.algorithms.triton.launch import Launch, program_of
from keras_diagwise.algorithms.triton.program import Program, compiled
from keras_diagwise.problem import PASSES, Problem
from tuning.gpu_programs import (
    DTYPES,
    HEADLINE,
    instructions_of,
    listing,
    longest_loop,
    turns,
)
from tuning.records import RESULTS, Records, write
from tuning.workloads import line, square

FILE = RESULTS / "gpu-costs.jsonl"

EVERY = 2
"""Every second program is held out, then the other half."""


def problems() -> Iterator[Problem]:
    """A few of each kind: kernel, stride, dilation, layout, filters, load width."""
    batch = {"batch": 64}
    two = {"strides": (2, 2)}
    first = {"data_format": "channels_first"}
    yield square(56, 144, 3, **batch)
    yield square(112, 32, 3, **two, **batch)
    yield square(113, 96, 3, **two, padding="valid", **batch)
    yield square(28, 240, 5, **batch)
    yield square(28, 240, 5, **two, **batch)
    yield square(56, 96, 7, batch=32)
    yield square(28, 128, 9, batch=16)
    yield square(56, 144, 3, **first, **batch)
    yield square(28, 240, 5, **first, **two, **batch)
    yield square(28, 64, 3, filters_per_group=2, **batch)
    yield square(28, 64, 3, dilation_rate=(2, 2), **batch)
    yield square(28, 30, 3, **batch)
    yield square(28, 66, 5, strides=(3, 3), **batch)
    yield line(4096, 768, 4, batch=32)
    yield line(1024, 256, 31, batch=4)


class Sample(NamedTuple):
    """A compiled program's counts.

    Attributes:
        how: a launch of it.
        dtype: dtype of its operands.
        looped: instructions of its longest loop, or 0.
        whole: instructions of the program.
        seconds: core seconds to compile it.
    """

    how: Launch
    dtype: str
    looped: int
    whole: int
    seconds: float

    @property
    def executed(self) -> int:
        """Instructions that a thread executes; in the kernel gradient, per tile."""
        if self.how.kernel == "kernel_gradient":
            return self.looped
        if not self.looped:
            return self.whole
        return self.whole + self.looped * (turns(dict(self.how.constants)) - 1)

    def executed_by(self, how: Launch) -> int:
        """Instructions that a thread executes in total, in a launch of the program."""
        if how.kernel != "kernel_gradient":
            return self.executed
        return self.whole + self.looped * (cost.tiles_of(how) - 1)


def core_seconds() -> float:
    """Core seconds used by this process and the assemblers that it started."""
    return sum(os.times()[:4])


def read(program: Program) -> dict:
    """Compiles a program and counts its instructions."""
    os.environ["TRITON_CACHE_DIR"] = tempfile.mkdtemp()
    begun = core_seconds()
    code = compiled(program).asm["cubin"]
    seconds = core_seconds() - begun
    lines = instructions_of(listing(code).text)
    loop = longest_loop(lines)
    looped = loop.stop - loop.start
    looped = 0 if looped == len(lines) else looped
    return {"looped": looped, "whole": len(lines), "seconds": round(seconds, 2)}


def samples(compiles: bool = False) -> dict[Program, Sample]:
    """The samples by program; with `compiles`, missing ones are added."""
    records = Records(FILE)
    known = {tuple(line["key"]): line for line in records.lines}
    found: dict[Program, Sample] = {}
    for problem, pass_name in asked():
        for candidate in Triton.variants(problem, pass_name):
            how = candidate.launch(problem, pass_name, problem.batch)
            program = program_of(how, problem.dtype, HEADLINE)
            key = str(problem), pass_name, str(candidate)
            if program in found or (key not in known and not compiles):
                continue
            line = known.get(key) or records.add(key, **read(program))
            values = (line[name] for name in ("looped", "whole", "seconds"))
            found[program] = Sample(how, problem.dtype, *values)
    return found


def asked() -> Iterator[tuple[Problem, str]]:
    """Problems and passes whose programs are sampled."""
    for problem, dtype in itertools.product(problems(), DTYPES[:2]):
        for pass_name in PASSES:
            yield dataclasses.replace(problem, dtype=dtype), pass_name


def fitted(some: Sequence[Sample]) -> Fit:
    """Coefficients with the least squared relative error on the samples."""
    kernel = some[0].how.kernel
    rows = solved([terms(each) for each in some], [each.executed for each in some])
    if kernel != "kernel_gradient":
        return Fit(*rows)
    ends = [each.whole - each.looped for each in some]
    sums = [cost.sums(dict(each.how.constants)) for each in some]
    return Fit(*rows, *solved([[0, 1, n] for n in sums], ends))


def terms(sample: Sample) -> list[float]:
    """The products, and the factor of each coefficient of a `Fit`."""
    counts = cost.counts_of(sample.how.kernel, sample.how.constants)
    none = Fit(0, 0, 0, 0, 0)
    products = cost.of_counts(counts, none, sample.dtype)
    return [products] + [
        cost.of_counts(counts, none._replace(**{name: 1}), sample.dtype) - products
        for name in Fit._fields[:5]
    ]


def solved(rows: Sequence[Sequence[float]], totals: Sequence[float]) -> list[float]:
    """Non-negative coefficients of the columns after the first, fitted so that each row
    sums to its total."""
    table = np.array(rows, float) / np.array(totals, float)[:, None]
    wanted = 1 - table[:, 0]
    used = list(range(1, table.shape[1]))
    while True:
        found = np.linalg.lstsq(table[:, used], wanted, rcond=None)[0]
        if min(found) >= 0:
            break
        used.pop(int(np.argmin(found)))
    places = dict(zip(used, found, strict=True))
    return [round(float(places.get(i, 0)), 2) for i in range(1, table.shape[1])]


def ratios(some: Sequence[Sample], fit: Fit) -> list[float]:
    """Predicted over counted instructions of each sample."""
    counted = [cost.counts_of(each.how.kernel, each.how.constants) for each in some]
    return [
        cost.of_counts(counts, fit, each.dtype) / each.executed
        for each, counts in zip(some, counted, strict=True)
    ]


def errors(some: Sequence[Sample]) -> dict[str, float]:
    """Errors of the prediction: fitted to all samples, and on the held-out halves."""
    halves = [some[i::EVERY] for i in range(EVERY)]
    pairs = (halves, reversed(halves))
    held = [n for one, other in zip(*pairs) for n in ratios(one, fitted(other))]  # noqa: B905
    found = ratios(some, fitted(some))
    return {
        "programs": len(some),
        "least": round(min(found), 2),
        "most": round(max(found), 2),
        "mean_error": round(float(np.mean(np.abs(np.array(found) - 1))), 3),
        "mean_error_held_out": round(float(np.mean(np.abs(np.array(held) - 1))), 3),
        "seconds_to_compile": round(float(np.mean([s.seconds for s in some])), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compile", action="store_true", help="read what is missing")
    every = samples(parser.parse_args().compile).values()
    figures: dict = {
        "date": datetime.date.today().isoformat(),
        "triton": importlib.metadata.version("triton"),
    }
    for kernel in cost.FITS:
        some = [each for each in every if each.how.kernel == kernel]
        figures[kernel] = errors(some)
        print(f'    "{kernel}": {fitted(some)},', figures[kernel])
    write("gpu-costs.json", figures)


if __name__ == "__main__":
    main()
