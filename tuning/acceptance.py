"""Measures the figures that the README claims: `nox -s acceptance`.

    python -m tuning.acceptance [PART ...]

Each part compares stock and converted, interleaved in one process, and writes its
figures to tuning/results/acceptance-<backend>.json at once.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import keras
import numpy as np

import keras_diagwise
from keras_diagwise import backends
from keras_diagwise.environment import Environment
from keras_diagwise.tuner.measure import interleaved, medians
from tuning.models import batch_of, ideal_model_of, steps_of
from tuning.peak_memory import xla_peak
from tuning.ratios import compared, geometric_mean, touch_memory
from tuning.records import write_part
from tuning.workloads import application, grouped_problems, trainable

BACKEND = keras.backend.backend()
MODEL, IMAGE_SIZE, BATCH = "MobileNetV2", 96, 16


def stock_and_converted(**compile_arguments) -> dict[str, keras.Model]:
    """A stock model and its converted copy, compiled alike; nothing is traced yet."""
    stock = trainable(MODEL, IMAGE_SIZE, **compile_arguments)
    return {
        "stock": stock,
        "converted": keras_diagwise.convert(stock, copy=True, verbose=0),
    }


def step_of(model):
    return steps_of(model, *batch_of(IMAGE_SIZE, BATCH))["train"]


def prediction_of(model):
    return steps_of(model, *batch_of(IMAGE_SIZE, BATCH))["predict"]


def model_parts(**compile_arguments) -> dict:
    """Steps, predictions and losses of whole models."""
    models = stock_and_converted(**compile_arguments)
    losses = {
        name: [step_of(model)() for _ in range(3)] for name, model in models.items()
    }
    models["ideal"] = ideal_model_of(models["converted"])
    steps = {name: step_of(model) for name, model in models.items()}
    predictions = {name: prediction_of(model) for name, model in models.items()}
    return {
        "train_step": compared(interleaved(steps, (), seconds=60, min_rounds=8)),
        "predict": compared(interleaved(predictions, (), seconds=20, min_rounds=8)),
        "losses_of_three_steps": losses,
    }


def first_step() -> dict:
    """Times the first step (trace, compile, run), stock and converted interleaved."""
    taken: dict[str, list[float]] = {"stock": [], "converted": []}
    for turn in range(4):
        for name in sorted(taken, reverse=bool(turn % 2)):
            model = stock_and_converted()[name]
            if BACKEND == "jax":
                import jax

                jax.clear_caches()
            start = time.perf_counter()
            step_of(model)()
            taken[name].append(time.perf_counter() - start)
    ratios = [
        ours / stock
        for stock, ours in zip(*map(taken.get, ("stock", "converted")), strict=True)
    ]
    return {
        "stock_s": statistics.median(taken["stock"]),
        "converted_s": statistics.median(taken["converted"]),
        "converted_over_stock": statistics.median(ratios),
        "pairs": len(ratios),
    }


def all_passes(problem, convolve, compiler_mode):
    """A function that computes the outputs and both gradients of a problem."""
    kernel_shape = (*problem.kernel_size, problem.groups, problem.filters_per_group)
    generator = np.random.default_rng(0)
    operands = [
        keras.ops.convert_to_tensor(generator.standard_normal(shape, "float32"))
        for shape in (problem.input_shape(), kernel_shape, problem.output_shape())
    ]
    convolve = functools.partial(
        convolve, strides=problem.strides, padding=problem.padding
    )
    if BACKEND == "jax":
        import jax

        def run(inputs, kernel, gradient):
            outputs, transpose = jax.vjp(convolve, inputs, kernel)
            return outputs, transpose(gradient)

    elif BACKEND == "tensorflow":
        import tensorflow as tf

        def run(inputs, kernel, gradient):
            with tf.GradientTape() as tape:
                tape.watch([inputs, kernel])
                outputs = convolve(inputs, kernel)
            return outputs, tape.gradient(outputs, [inputs, kernel], gradient)

    else:
        import torch

        operands[:2] = [tensor.requires_grad_() for tensor in operands[:2]]

        def run(inputs, kernel, gradient):
            outputs = convolve(inputs, kernel)
            return outputs, torch.autograd.grad(outputs, [inputs, kernel], gradient)

    return functools.partial(backends.active.compiled(run, compiler_mode), *operands)


def problems_part(compiler_mode) -> dict:
    """Times forward and both gradients of each depthwise problem of the model, the
    default plan against native."""
    rows = []
    for problem in grouped_problems(application(MODEL, IMAGE_SIZE), BATCH):
        functions = {
            "stock": all_passes(problem, keras.ops.depthwise_conv, compiler_mode),
            "converted": all_passes(
                problem, keras_diagwise.depthwise_conv, compiler_mode
            ),
        }
        samples = interleaved(functions, (), seconds=3, min_rounds=10)
        rows.append({"problem": str(problem), **compared(samples)})
        print(rows[-1]["problem"], round(rows[-1]["speedup"], 2), flush=True)
    return {
        "geometric_mean_speedup": geometric_mean(row["speedup"] for row in rows),
        "least_speedup": min(row["speedup"] for row in rows),
        "rows": rows,
    }


def added_to_an_eager_call() -> dict:
    """Microseconds that a native plan adds to a call on a tiny input: to the stock op,
    and to no op in its place, which is the look-up alone."""
    keras_diagwise.decisions.on_miss = "native"
    inputs = keras.ops.convert_to_tensor(np.ones((1, 4, 4, 4), "float32"))
    kernel = keras.ops.convert_to_tensor(np.ones((3, 3, 4, 1), "float32"))
    arguments = ((1, 1), "same", "channels_last", (1, 1))
    functions = {
        "stock": lambda: keras.ops.depthwise_conv(inputs, kernel, *arguments),
        "converted": lambda: keras_diagwise.depthwise_conv(inputs, kernel, *arguments),
    }
    samples = interleaved(functions, (), seconds=20, min_rounds=200, max_rounds=2000)
    added = [
        ours - stock
        for stock, ours in zip(samples["stock"], samples["converted"], strict=True)
    ]
    middle = medians(samples)
    with mock.patch("keras_diagwise.ops.stock_depthwise_conv", nothing):
        functions["stock"] = lambda: nothing(inputs, kernel, *arguments)
        alone = medians(interleaved(functions, (), seconds=5, max_rounds=2000))
    keras_diagwise.decisions.on_miss = "nearest"
    return {
        "stock_us": 1e6 * middle["stock"],
        "added_us": 1e6 * statistics.median(added),
        "look_up_us": 1e6 * (alone["converted"] - alone["stock"]),
        "pairs": len(added),
    }


def nothing(inputs, kernel, *arguments):
    """Stands in for a convolution."""
    return inputs


def tune_model() -> dict:
    """Tunes a model in an empty store, twice, then times its step by tuned decisions
    against shipped ones."""
    model = stock_and_converted()["converted"]
    shipped = keras_diagwise.convert(model, copy=True, verbose=0)
    keras_diagwise.pin(shipped, batch_size=BATCH)
    reports = [
        keras_diagwise.tune(model, batch_size=BATCH, verbose=0) for _ in range(2)
    ]
    steps = {"stock": step_of(shipped), "converted": step_of(model)}
    for step in steps.values():
        step()
    against_shipped = compared(interleaved(steps, (), seconds=60, min_rounds=20))
    return {
        "seconds": [report.seconds for report in reports],
        "passes_measured": [report.measured for report in reports],
        "undecided": list(reports[0].undecided),
        "model": reports[0].model.to_dict(),
        "tuned_step_over_shipped": 1 / against_shipped["speedup"],
        "tuned_step_over_shipped_95_percent_at_most": against_shipped[
            "converted_over_stock_95_percent_at_most"
        ],
        "pairs": against_shipped["pairs"],
    }


PROFILED = 20


def predict_profile() -> dict:
    """On JAX, milliseconds of a prediction by kind of operation, for the converted and
    the ideal model, by XLA's profiler. Padding is a separate operation where a
    depthwise convolution reads more than one pixel; the other kinds are not of these
    layers."""
    converted = stock_and_converted()["converted"]
    models = {"converted": converted, "floor": ideal_model_of(converted)}
    return {name: profile_of(model) for name, model in models.items()}


def profile_of(model) -> dict:
    import jax

    predict = prediction_of(model)
    predict()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(PROFILED):
                predict()
        (path,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(path))
    found: collections.Counter = collections.Counter()
    for plane in profile.planes:
        for line in plane.lines:
            for event in line.events:
                kind = kind_of_operation(event.name)
                if kind:
                    found[kind] += 1e-6 * event.duration_ns / PROFILED
    return dict(found)


def kind_of_operation(name: str) -> str | None:
    """Kind of a profiler event, or `None` if it is not an operation of the program."""
    if not re.fullmatch(r"[a-z_]+_fusion(\.\d+)?", name):
        return None
    if name.startswith("ynn"):
        return "dense and pointwise convolutions"
    return "padding" if "_pad_" in name else "other fused loops"


def peak_memory() -> dict:
    """Peak memory of a step: on JAX by `xla_peak`, elsewhere a child's peak RSS."""
    if BACKEND == "jax":
        models = stock_and_converted().items()
        peak = {
            name: xla_peak(model, *batch_of(IMAGE_SIZE, BATCH))
            for name, model in models
        }
    else:
        peak = {name: child_peak(name) for name in ("stock", "converted")}
    return {
        **{f"{name}_MiB": value / 2**20 for name, value in peak.items()},
        "converted_over_stock": peak["converted"] / peak["stock"],
    }


def child_peak(name: str) -> int:
    """Median peak RSS of some steps, over three child processes."""
    command = [sys.executable, "-m", "tuning.acceptance", "--train-and-tell-peak", name]
    peaks = [
        int(
            subprocess.run(
                command, capture_output=True, text=True, check=True
            ).stdout.split()[-1]
        )
        for _ in range(3)
    ]
    return int(statistics.median(peaks))


def train_and_tell_peak(name: str) -> None:
    model = stock_and_converted()[name]
    step = step_of(model)
    for _ in range(4):
        step()
    print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


COMPILER_MODE = {"jax": "xla", "tensorflow": "graph", "torch": "eager"}[BACKEND]

PARTS = {
    "model": model_parts,
    "problems": functools.partial(problems_part, COMPILER_MODE),
    "first_step": first_step,
    "peak_memory": peak_memory,
    "tune": tune_model,
    "eager_call": added_to_an_eager_call,
}
if BACKEND == "jax":
    PARTS["predict_profile"] = predict_profile
if BACKEND == "tensorflow":
    PARTS["model_jit_compile"] = functools.partial(model_parts, jit_compile=True)
    PARTS["problems_jit_compile"] = functools.partial(problems_part, "xla")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all if none")
    parser.add_argument("--train-and-tell-peak", choices=("stock", "converted"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as empty:
        keras_diagwise.decisions.location = empty  # ignores decisions tuned here
        if options.train_and_tell_peak:
            train_and_tell_peak(options.train_and_tell_peak)
        else:
            run(options.parts or list(PARTS))


def run(parts) -> None:
    """Runs parts and writes the figures of each."""
    touch_memory()
    for part in parts:
        environment = dataclasses.replace(
            Environment.current(), compiler_mode=COMPILER_MODE
        )
        figures = PARTS[part]()
        write_part(f"acceptance-{BACKEND}.json", part, environment, figures)
        short = {k: v for k, v in figures.items() if k != "rows"}
        print(part, json.dumps(short, indent=1), flush=True)


if __name__ == "__main__":
    main()
