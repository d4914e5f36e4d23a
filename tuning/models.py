"""Whole models: a training step and a prediction, stock against converted and tuned.

    python -m tuning.models [--image-size 96] [--batch-size 16] [--policies float32]
                            [--names MobileNetV2,…] [--stop-after SECONDS]

A line is written into tuning/results/<device>/models-<backend>.jsonl for each model
as soon as it is done, and what is there is not run again.
"""

from __future__ import annotations

import argparse
import time

import keras
import numpy as np
import rich.box
import rich.console
import rich.table

import keras_diagwise
from keras_diagwise.models.summary import environment_of
from keras_diagwise.tuner.measure import interleaved
from tuning.ratios import compared, geometric_mean
from tuning.records import OVER, Records, device_folder
from tuning.workloads import WHOLE_MODELS, application


def steps_of(model, images, labels) -> dict:
    return {
        "train": lambda: model.train_on_batch(images, labels),
        "predict": lambda: model.predict_on_batch(images),
    }


def measured(name: str, image_size: int, batch_size: int, seconds: float) -> dict:
    """Stock against converted; how long tuning took, and first steps."""
    keras.utils.set_random_seed(0)
    stock = application(name, image_size)
    stock.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    converted = keras_diagwise.convert(stock, verbose=0)
    report = keras_diagwise.tune(converted, batch_size=batch_size, verbose=0)
    generator = np.random.default_rng(0)
    shape = (batch_size, image_size, image_size, 3)
    images = generator.standard_normal(shape, "float32")
    labels = generator.integers(0, 10, batch_size)
    models = {"stock": stock, "converted": converted}
    steps = {each: steps_of(model, images, labels) for each, model in models.items()}
    first = {}
    for each, of_model in steps.items():
        started = time.perf_counter()
        of_model["train"]()
        first[each] = time.perf_counter() - started
    figures = {
        step: compared(
            interleaved(
                {each: of_model[step] for each, of_model in steps.items()},
                (),
                seconds=seconds,
                least_rounds=8,
            )
        )
        for step in ("train", "predict")
    }
    plans = keras_diagwise.summary(converted, batch_size=batch_size)
    return {
        "environment": environment_of(converted).to_dict(),
        "first_step_s": first,
        "seconds_to_tune": report.seconds,
        "plans": {each.path: str(each.plan) for each in plans},
        **figures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--policies", default="float32")
    parser.add_argument("--names", default=",".join(WHOLE_MODELS))
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--stop-after", type=float, default=float("inf"))
    options = parser.parse_args()
    until = time.monotonic() + options.stop_after
    model = keras.Sequential([keras.Input((4,))])
    folder = device_folder(environment_of(model).to_dict())
    records = Records(folder / f"models-{keras.backend.backend()}.jsonl")
    for policy in options.policies.split(","):
        keras.config.set_dtype_policy(policy)
        for name in options.names.split(","):
            key = [name, options.image_size, options.batch_size, policy]
            if key in records:
                continue
            if time.monotonic() > until:
                raise SystemExit(OVER)
            figures = measured(
                name, options.image_size, options.batch_size, options.seconds
            )
            records.add(key, **figures)
            print(*key, f"{figures['train']['speedup']:.2f}×", flush=True)
    print_table(records)


def print_table(records: Records) -> None:
    """A row for each model."""
    table = rich.table.Table(box=rich.box.SIMPLE)
    for heading in ("model", "step", "ratio", "predict", "ratio"):
        table.add_column(heading)
    for record in records.lines:
        train, predict = record["train"], record["predict"]
        table.add_row(
            " ".join(map(str, record["key"])),
            f"{train['stock_ms']:.3g} → {train['converted_ms']:.3g} ms",
            f"{train['speedup']:.2f}×",
            f"{predict['stock_ms']:.3g} → {predict['converted_ms']:.3g} ms",
            f"{predict['speedup']:.2f}×",
        )
    rich.console.Console().print(table)
    if records.lines:
        mean = geometric_mean(each["train"]["speedup"] for each in records.lines)
        print(f"training steps: {mean:.2f}× in geometric mean")


if __name__ == "__main__":
    main()
