"""Jobs of the GPU campaign; each takes half a minute or less on the active backend.

    python -m tuning.jobs     (on the backend of KERAS_BACKEND)

Reads requests as lines of JSON from stdin and writes answers to stdout. Candidates are
verified before they are timed: on two images against float64, and on the whole batch
against native.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras

import keras_diagwise
from keras_diagwise import backends
from keras_diagwise.algorithms import Algorithm, Triton, parse
from keras_diagwise.algorithms.triton.launch import program_of
from keras_diagwise.algorithms.triton.program import compile_apart
from keras_diagwise.decision import to_four_digits
from keras_diagwise.environment import Environment, usable_cores
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.tuner import verify
from keras_diagwise.tuner.measure import interleaved
from keras_diagwise.tuner.outcomes import judged, outcome_of, standard_error
from keras_diagwise.tuner.roofline import measure_roofline
from keras_diagwise.tuner.runner import PassTask, Runner, failed
from tuning.answers import answer_requests
from tuning.models import batch_of, steps_of
from tuning.records import RESULTS
from tuning.ship import collect
from tuning.workloads import square, trainable

SECONDS = 0.4
"""Time for the candidates of a pass."""
IMAGES = 2
"""Images on which candidates are verified against float64."""


def mode() -> str:
    """The compiler mode of a model's step by Keras's default."""
    return Environment.current().compiler_mode


def limits() -> dict:
    """Versions, the device's rate of copies and FLOPs, and the cost of eager calls."""
    environment = Environment.current()
    found = measure_roofline(environment.compiler_mode, "float32")
    tiny = square(8, 16, 3, batch=2)
    inputs, kernel = verify.operands(tiny, "forward", 0)
    calls = {"an addition": lambda: inputs + 1}
    for each in ("native", "triton"):
        algorithm = parse(each)
        if algorithm.refusal(tiny) is None:
            run = functools.partial(algorithm.forward, tiny, inputs, kernel)
            calls[each] = backends.active.compiled(run, environment.compiler_mode)
    launches = interleaved(calls, (), seconds=2.0, max_rounds=20)
    return {
        "environment": environment.to_dict(),
        "copies": [
            [moved, to_four_digits(moved / seconds)] for moved, seconds in found.copies
        ],
        "flops_per_second": to_four_digits(found.flops_per_second),
        "seconds_of_a_call": {n: median(taken) for n, taken in launches.items()},
    }


def compile_programs(problems: Sequence[dict], processes: int | None = None) -> dict:
    """Compiles the programs of `triton` for problems on all cores, into Triton's cache,
    where torch finds them."""
    from tuning import gpu_programs

    asked = [Problem.from_dict(each) for each in problems]
    capability = gpu_programs.capability_here()
    if capability is None:
        return {"programs": 0, "reason": "nothing is compiled here"}
    programs = {
        program_of(how, problem.dtype, capability)
        for problem in asked
        for _, _, how in gpu_programs.launches(problem)
    }
    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(processes or usable_cores()) as pool:
        done = [pool.submit(compile_apart, program) for program in programs]
    return {
        "programs": len(done),
        "failed": sum(each.exception() is not None for each in done),
        "seconds": round(time.monotonic() - begun, 1),
    }


def compare(problem: dict, candidates: Sequence[str], variants: bool = False) -> dict:
    """Times each pass of a problem by native, the given candidates, and with `variants`
    those of `triton`.

    Returns:
        By pass and candidate, seconds or a failure, and the error.
    """
    asked = Problem.from_dict(problem)
    found = {}
    for pass_name in PASSES:
        algorithms = [parse(each) for each in ("native", *candidates)]
        if variants and Triton().refusal(asked) is None:
            algorithms += Triton.variants(asked, pass_name)
        found[pass_name] = compared(asked, pass_name, list(dict.fromkeys(algorithms)))
    return {
        "environment": Environment.current().to_dict(),
        "least_bytes": asked.least_bytes,
        "passes": found,
    }


def compared(
    problem: Problem, pass_name: str, algorithms: Sequence[Algorithm]
) -> dict[str, dict]:
    """Outcome of each algorithm for a pass, timed interleaved."""
    bench, task = Runner(), PassTask(problem, pass_name, mode())
    small = dataclasses.replace(problem, batch=min(IMAGES, problem.batch or IMAGES))
    few = dataclasses.replace(task, problem=small)
    standard = standard_error(bench, problem.dtype, pass_name, task.compiler_mode)
    operands = verify.operands(problem, pass_name, 0)
    rows: dict[str, dict] = {}
    runs: dict[str, Callable] = {}
    expected = None
    for algorithm in algorithms:
        refusal = algorithm.refusal(problem)
        if refusal:
            rows[str(algorithm)] = {"failure": "refused", "reason": refusal}
            continue
        finding = judged(bench.examine(few, algorithm), algorithm, standard)
        rows[str(algorithm)] = outcome_of(finding).to_dict()
        if finding.failure:
            continue
        run = bench.function(task, algorithm)
        try:
            result = run(*operands)
            expected = result if expected is None else expected
            apart = difference(result, expected)
        except Exception as error:
            rows[str(algorithm)] = outcome_of(failed(error).finding).to_dict()
            continue
        rows[str(algorithm)]["apart"] = to_four_digits(apart)
        if apart > verify.MAX_OF_ROUNDING:
            rows[str(algorithm)]["failure"] = "wrong numbers"
            continue
        runs[str(algorithm)] = run
    for name, taken in interleaved(runs, operands, seconds=SECONDS).items():
        rows[name]["seconds"] = median(taken)
    return rows


def difference(result, expected) -> float:
    """Largest difference of two tensors, over the expected root mean square."""
    result, expected = (keras.ops.cast(each, "float32") for each in (result, expected))
    scale = float(keras.ops.sqrt(keras.ops.mean(keras.ops.square(expected)))) or 1.0
    return float(keras.ops.max(keras.ops.abs(result - expected))) / scale


def settings(problem: dict) -> dict:
    """Times torch's own convolution for each pass of a problem under every setting that
    a user can make: cuDNN or not, its benchmark search, TF32."""
    import torch

    asked = Problem.from_dict(problem)
    found: dict[str, dict] = {name: {} for name in PASSES}
    switches = ("enabled", "benchmark", "allow_tf32")
    for values in itertools.product((True, False), repeat=3):
        if not values[0] and any(values[1:]):
            continue
        words = [name for name, on in zip(switches, values, strict=True) if on]
        with torch.backends.cudnn.flags(**dict(zip(switches, values, strict=True))):
            for pass_name in PASSES:
                task = PassTask(asked, pass_name, "eager")
                run = Runner().function(task, parse("native"))
                operands = verify.operands(asked, pass_name, 0)
                taken = interleaved({"native": run}, operands, seconds=SECONDS / 4)
                found[pass_name]["+".join(words) or "off"] = median(taken["native"])
    return {"least_bytes": asked.least_bytes, "passes": found}


def profile(problem: dict, candidate: str) -> dict:
    """The kernels that run in each pass and their times, by torch's profiler."""
    import torch

    asked = Problem.from_dict(problem)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    found = {}
    for pass_name in PASSES:
        operands = verify.operands(asked, pass_name, 0)
        run = Runner().function(PassTask(asked, pass_name, "eager"), parse(candidate))
        run(*operands)
        with torch.profiler.profile(activities=activities) as seen:
            for _ in range(5):
                run(*operands)
            backends.active.synchronize(())
        rows = [
            [each.key[:80], each.count, getattr(each, "self_device_time_total", 0.0)]
            for each in seen.key_averages()
        ]
        found[pass_name] = sorted(rows, key=lambda row: -row[2])[:6]
    return found


def step(
    name: str,
    image_size: int,
    batch_size: int,
    steps: int,
    policy: str,
    plan: str | None,
) -> dict:
    """Times a training step of a `keras.applications` model, stock or by a plan."""
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    begun = time.monotonic()
    is_xla = mode() == "xla"
    model = trainable(name, image_size, jit_compile=is_xla)
    if plan is not None:
        keras_diagwise.convert(model, plan=plan, verbose=0)
    run = steps_of(model, *batch_of(image_size, batch_size))["train"]
    run()
    first = time.monotonic() - begun
    samples = []
    for _ in range(steps):
        started = time.perf_counter()
        run()
        samples.append(time.perf_counter() - started)
    return {
        "environment": Environment.current().to_dict(),
        "first_step": round(first, 1),
        "seconds": median(samples[len(samples) // 6 :]),
        "samples": [to_four_digits(each) for each in samples],
    }


def tune(
    name: str, image_size: int, batch_size: int, policy: str, seconds: float, to: str
) -> dict:
    """Tunes a `keras.applications` model for some seconds, then adds all decisions of
    this device to the documents in a folder of the results."""
    keras.config.set_dtype_policy(policy)
    model = trainable(name, image_size, jit_compile=mode() == "xla")
    keras_diagwise.convert(model, verbose=0)
    report = keras_diagwise.tune(
        model, batch_size=batch_size, budget=seconds, verbose=0
    )
    figures = report.to_dict()
    return {
        "environment": report.environment.to_dict(),
        "known": collect(report.environment, RESULTS / to),
        **{name: figures[name] for name in ("measured", "seconds", "ended", "model")},
    }


def median(samples: Sequence[float]) -> float | None:
    return to_four_digits(statistics.median(samples))


JOBS: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (limits, compile_programs, compare, settings, profile, step, tune)
}


def main() -> None:
    answer_requests(lambda request: JOBS[request[0]](**request[1]))


if __name__ == "__main__":
    main()
