"""Times look-ups in a store of 100,000 decisions.

    python -m tests.stress.crowded_store [--decisions N]

Makes two stores: `fleet`, as many kinds of devices would leave it, and `one bucket`,
the worst case, all in one bucket of one environment. Each first look-up runs in its own
process. Writes the figures to tuning/results/crowded-store-<backend>.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import rich

import keras_diagwise
from keras_diagwise import backends
from keras_diagwise.decision import Comparison, Decision, Outcome
from keras_diagwise.environment import Environment
from keras_diagwise.ops import dispatcher
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.storage.files import (
    decision_path,
    decision_to_bytes,
    environment_path,
    environment_to_bytes,
)
from tuning.records import write_part
from tuning.workloads import square

DECISIONS = 100_000
KINDS = 40
"""Number of environments in the fleet's store."""
PROCESSES = 3
RUNS, CALLS = 400, 100
MEASURED = "2026-01-01T00:00:00+00:00"

ALL_BUT_BATCH = (
    (3, 5, 7),
    (1, 2),
    ("float32", "bfloat16", "float16"),
    (7, 14, 28, 56, 112),
    (24, 32, 64, 96, 144, 192, 240, 288, 384, 480, 576, 672, 960),
)


def problems_of_a_fleet(count: int) -> Iterator[Problem]:
    """Problems like those of many models."""
    found = (
        square(
            pixels, channels, kernel, strides=(stride, stride), batch=batch, dtype=dtype
        )
        for batch in itertools.count(1)
        for kernel, stride, dtype, pixels, channels in itertools.product(*ALL_BUT_BATCH)
    )
    return itertools.islice(found, count)


def problems_of_one_bucket(count: int) -> Iterator[Problem]:
    found = (
        square(7 + n % 100, 8 * (1 + n // 100 % 100), 3, batch=1 + n // 10_000)
        for n in itertools.count()
    )
    return itertools.islice(found, count)


def decision_of(problem: Problem) -> Decision:
    outcomes = {
        "native": Outcome(seconds=1e-2, error=1e-7),
        "direct": Outcome(seconds=1e-3, error=1e-7, gain=9.0),
        "direct:rows": Outcome(failure="outpaced", reason="2 ms in its first run"),
        "diagonal:32": Outcome(failure="pruned", reason="it can't win by arithmetic"),
    }
    comparison = Comparison(outcomes, MEASURED, roofline=1e-4)
    return Decision(problem, dict.fromkeys(PASSES, comparison))


def environments(here: Environment, count: int) -> list[Environment]:
    """The current environment, and those of other devices."""
    others = (
        dataclasses.replace(here, device_name=f"device {n}") for n in range(1, count)
    )
    return [here, *others]


def make(location: Path, environments: Sequence[Environment], problems) -> int:
    """Writes a store's files as the store would, without fsync."""
    count = 0
    problems = list(problems)
    for environment in environments:
        path = location / environment_path(environment.digest)
        path.parent.mkdir(parents=True)
        path.write_bytes(environment_to_bytes(environment))
        for problem in problems:
            path = location / decision_path(environment.digest, problem)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(
                decision_to_bytes(environment.digest, decision_of(problem))
            )
            count += 1
    return count


def first_look_up(location: str, problem: Problem) -> dict:
    """Files read and time taken by a fresh process to find the plan of a problem."""
    opened: list[str] = []

    def hook(event: str, arguments: tuple) -> None:
        if event in ("open", "os.listdir") and str(arguments[0]).startswith(location):
            opened.append(f"{event} {os.path.relpath(str(arguments[0]), location)}")

    environment = Environment.current()
    sys.addaudithook(hook)
    keras_diagwise.decisions.location = location
    at_start, begun = len(opened), time.perf_counter()
    answer = dispatcher.answer(problem, "auto", environment)
    seconds = time.perf_counter() - begun
    return {
        "rung": answer.source,
        "ms": 1e3 * seconds,
        "read_at_start": at_start,
        "read_by_the_look_up": len(opened),
    }


def memoised_look_up(location: str, problem: Problem) -> float:
    """Microseconds of a call of `conv` before it computes, its plan memoised.

    The minimum of many short runs, which other processes disturb the least.
    """
    backends.active.differentiable = lambda convolution, inputs, kernel: inputs
    keras_diagwise.decisions.location = location
    inputs = keras.ops.zeros(problem.input_shape(), problem.dtype)
    kernel = keras.ops.zeros(problem.kernel_shape, problem.dtype)
    operands = inputs, kernel
    arguments = problem.strides, problem.padding, problem.data_format, 1
    keras_diagwise.conv(*operands, *arguments)
    taken = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        for _ in range(CALLS):
            keras_diagwise.conv(*operands, *arguments)
        taken.append((time.perf_counter() - begun) / CALLS)
    return 1e6 * min(taken)


def in_a_process(*arguments: str) -> dict:
    command = [sys.executable, "-m", "tests.stress.crowded_store", "--look", *arguments]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(found.stdout.splitlines()[-1])


def look(location: str, problem: str) -> dict:
    """First and memoised look-up, run in a child process."""
    asked = Problem.from_dict(json.loads(problem))
    found = first_look_up(location, asked)
    return {**found, "memoised_us": memoised_look_up(location, asked)}


def figures(location: Path, known: Problem, near: Problem) -> dict:
    """Look-up figures of a measured problem and of one that was not measured."""
    found = {}
    for name, problem in (("measured", known), ("nearest", near)):
        text = json.dumps(problem.to_dict())
        runs = [in_a_process(str(location), text) for _ in range(PROCESSES)]
        milliseconds = sorted(each["ms"] for each in runs)
        found[name] = {
            "rung": runs[0]["rung"],
            "first_ms": [round(each, 2) for each in milliseconds],
            "first_ms_median": round(milliseconds[PROCESSES // 2], 2),
            "memoised_us": round(min(each["memoised_us"] for each in runs), 2),
            "read_at_start": runs[0]["read_at_start"],
            "read_by_the_look_up": runs[0]["read_by_the_look_up"],
        }
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decisions", type=int, default=DECISIONS)
    parser.add_argument("--look", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.look:
        return print(json.dumps(look(*options.look)))
    here = Environment.current()
    shapes = {
        "fleet": (KINDS, problems_of_a_fleet),
        "one bucket": (1, problems_of_one_bucket),
    }
    for name, (kinds, problems_of) in shapes.items():
        with tempfile.TemporaryDirectory() as folder:
            problems = list(problems_of(options.decisions // kinds))
            count = make(Path(folder), environments(here, kinds), problems)
            known = problems[len(problems) // 2]
            near = dataclasses.replace(known, batch=1000)
            size = sum(each.stat().st_size for each in Path(folder).rglob("*.json"))
            found = {
                "decisions": count,
                "environments": kinds,
                "megabytes": round(size / 2**20, 1),
                **figures(Path(folder), known, near),
            }
        backend = keras.backend.backend()
        write_part(f"crowded-store-{backend}.json", name, here, found)
        rich.print(name, found)
    return None


if __name__ == "__main__":
    main()
