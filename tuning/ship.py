"""Measures the decisions that ship with the package: `nox -s ship`.

    python -m tuning.ship [--compiler-mode xla] [--seconds 0.5]

Every candidate is verified against native before it is timed. A decision is
written as soon as it is known, and a run that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time

import keras
import numpy as np

from keras_diagwise import backends
from keras_diagwise.algorithms import Direct, Native
from keras_diagwise.planning.decision import Decision, Document
from keras_diagwise.planning.environment import Environment
from keras_diagwise.planning.planner import SHIPPED
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.tuner.measure import interleaved, medians
from tuning.workloads import shipped_problems

CANDIDATES = (Native, Direct)
"""`diagonal` is left out: on XLA's CPU compiler its grouped lowering takes seconds
a pass and its split one lost to `direct` everywhere it was tried."""


def operands_of(problem: Problem, pass_name: str):
    generator = np.random.default_rng(0)
    shapes = {
        "forward": (problem.input_shape(), problem.kernel_shape),
        "input_gradient": (problem.kernel_shape, problem.output_shape()),
        "kernel_gradient": (problem.input_shape(), problem.output_shape()),
    }[pass_name]
    return [
        keras.ops.convert_to_tensor(
            generator.standard_normal(shape, "float32"), dtype=problem.dtype
        )
        for shape in shapes
    ]


def as_array(tensor) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")))


def measure_pass(problem, pass_name, compiler_mode, seconds) -> dict[str, float]:
    operands = operands_of(problem, pass_name)
    compiled, results = {}, {}
    for kind in CANDIDATES:
        for candidate in kind.candidates(problem, pass_name):
            if candidate.refusal(problem):
                continue
            run = functools.partial(getattr(candidate, pass_name), problem)
            compiled[str(candidate)] = backends.active.compiled(run, compiler_mode)
            results[str(candidate)] = as_array(compiled[str(candidate)](*operands))
    native = results["native"]
    # Both round: in low precision native rounds at each addition.
    allowed = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 5e-2}[problem.dtype]
    for name, result in results.items():
        error = np.linalg.norm(result - native) / np.linalg.norm(native)
        if not error <= allowed:
            raise SystemExit(f"{pass_name} of {name} on {problem} is off by {error}")
    return medians(interleaved(compiled, operands, seconds=seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compiler-mode", default="xla")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--stop-after", type=float, default=float("inf"))
    options = parser.parse_args()
    environment = dataclasses.replace(
        Environment.current(), compiler_mode=options.compiler_mode
    )
    name = "-".join(
        (environment.device_kind, environment.backend, environment.compiler_mode)
    )
    path = SHIPPED / f"{name}.json"
    known = {}
    if path.exists():
        document = Document.read(path)
        if document.environment == environment:
            known = {each.problem: each for each in document.decisions}
    started = time.perf_counter()
    problems = shipped_problems()
    for number, problem in enumerate(problems, 1):
        if problem in known:
            continue
        if time.perf_counter() - started > options.stop_after:
            break
        seconds = {
            pass_name: measure_pass(
                problem, pass_name, options.compiler_mode, options.seconds
            )
            for pass_name in PASSES
        }
        known[problem] = Decision(problem, seconds)
        Document(environment, tuple(known.values())).write(path)
        plan = known[problem].plan(1.03)
        gain = known[problem].gain(plan)
        print(f"{number}/{len(problems)} {problem}: {plan}, {gain:.1f}×", flush=True)


if __name__ == "__main__":
    main()
