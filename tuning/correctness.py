"""Verifies every algorithm on this device against float64: pass, dtype, precision.

    python -m tuning.correctness [--stop-after SECONDS]

Candidates run in a child process, as in tuning. Appends a line to
tuning/results/<device>/correctness-<backend>.jsonl for each candidate at once; known
candidates are not run again.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import time

import keras

from keras_diagwise import algorithms, backends
from keras_diagwise.environment import Environment
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.tuner.outcomes import judged, standard_error
from keras_diagwise.tuner.runner import PassTask
from keras_diagwise.tuner.subprocess_runner import SubprocessRunner
from tuning.records import OVER, Records, device_folder
from tuning.workloads import line, square

DTYPES = ("float32", "bfloat16", "float16")
PRECISIONS: dict[str, list[dict]] = {
    "jax": [{"matmul_precision": None}, {"matmul_precision": "highest"}],
    "torch": [{"cudnn_allow_tf32": True}, {"cudnn_allow_tf32": False}],
}
"""Flags under which float32 is multiplied in TF32 on a GPU, and under which not."""

CANDIDATES = (
    *("native", "direct", "direct:rows"),
    *("diagonal:2", "diagonal:8", "diagonal:32", "diagonal:64"),
    *("diagonal:8:split", "diagonal:24:split"),
)

if backends.active.COMPILES_ALONE:
    CANDIDATES += ("direct:compiled", "direct:rows:compiled")


def problems() -> list[Problem]:
    """Small problems of every kind."""
    size, channels = 12, 64
    depthwise = [
        square(size, channels, 3, batch=4),
        square(size, channels, 3, batch=4, strides=(2, 2)),
        square(size, channels, 3, batch=4, strides=(2, 2), padding="valid"),
        square(size, channels, 5, batch=4, dilation_rate=(2, 2)),
        square(size, channels, 7, batch=4),
        square(size, channels // 2, 3, batch=4, filters_per_group=2),
        square(size, channels, 3, batch=4, data_format="channels_first"),
        line(64, channels, 9, batch=4),
    ]
    grouped = square(size, 16, 3, batch=4, channels_per_group=4, filters_per_group=4)
    return [*depthwise, grouped]


def precisions(environment: Environment) -> list[dict]:
    """Flags to compute under."""
    known = PRECISIONS.get(environment.backend, [{}])
    return known if environment.device_kind == "gpu" else [{}]


def tasks(compiler_mode: str):
    for dtype in DTYPES:
        for problem in problems():
            typed = dataclasses.replace(problem, dtype=dtype)
            for pass_name in PASSES:
                yield PassTask(typed, pass_name, compiler_mode)


def candidates(task: PassTask):
    """Candidates that support a task."""
    for name in CANDIDATES:
        candidate = algorithms.parse(name)
        if candidate.redundancy(task.compiler_mode):
            continue
        try:
            candidate.check(task.problem)
        except ValueError:
            continue
        if candidate.refusal(task.problem) is None:
            yield candidate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stop-after", type=float, default=float("inf"))
    options = parser.parse_args()
    until = time.monotonic() + options.stop_after
    environment = Environment.current()
    mode = {"tensorflow": "graph"}.get(environment.backend, environment.compiler_mode)
    folder = device_folder(environment.to_dict())
    records = Records(folder / f"correctness-{keras.backend.backend()}.jsonl")
    given = backends.active.flags()
    for chosen in precisions(environment):
        backends.active.set_flags({**given, **chosen})
        with contextlib.closing(SubprocessRunner(timeout=120.0)) as runner:
            check(records, runner, mode, until)
    print_table(records)


def check(records: Records, runner: SubprocessRunner, mode: str, until: float):
    """Adds a record for each candidate without one under these flags."""
    flags = backends.active.flags()
    for task in tasks(mode):
        standard = None
        for candidate in candidates(task):
            problem = task.problem
            key = [str(candidate), task.pass_name, problem.to_dict(), mode, flags]
            if key in records:
                continue
            if time.monotonic() > until:
                raise SystemExit(OVER)
            if standard is None:
                name = task.pass_name
                standard = standard_error(runner, problem.dtype, name, mode)
            finding = runner.examine(task, candidate)
            judgement = judged(finding, candidate, standard)
            records.add(
                key,
                error=finding.error and finding.error._asdict(),
                standard=standard._asdict(),
                failure=judgement.failure,
                reason=judgement.reason,
            )


def print_table(records: Records) -> None:
    """Prints the number of candidates by algorithm, dtype and outcome, and each failed
    one."""
    counts: dict = collections.defaultdict(collections.Counter)
    for record in records.lines:
        name, pass_name, problem, *_ = record["key"]
        state = record["failure"] or "right"
        counts[name.partition(":")[0], problem["dtype"]][state] += 1
        if record["failure"]:
            print(name, pass_name, Problem.from_dict(problem), record["reason"])
    for (name, dtype), found in counts.items():
        print(f"{name:10} {dtype:9}", dict(found))


if __name__ == "__main__":
    main()
