"""Times training steps and predictions of whole models, stock against tuned.

    python -m tuning.models [--image-size 96] [--batch-size 16] [--policies float32]
                            [--names MobileNetV2,…] [--budget SECONDS]
                            [--stop-after SECONDS]

On JAX also against the ideal model. Appends a line to
tuning/results/<device>/models-<backend>.jsonl for each model as soon as it is done;
known models are not run again. Started by `keras-diagwise run`, stock and converted
have their memory in huge pages, and the file is models-<backend>-huge-pages.jsonl.
"""

from __future__ import annotations

import argparse
import functools
import time

import keras
import numpy as np
import rich.box
import rich.console
import rich.table

import keras_diagwise
from keras_diagwise import backends
from keras_diagwise.models.environment import environment_of
from keras_diagwise.tuner.measure import interleaved
from keras_diagwise_cli.diagnosis.nvidia import has_driver
from keras_diagwise_cli.tunables import in_huge_pages
from tuning.ratios import compared, geometric_mean, touch_memory
from tuning.records import OVER, Records, device_folder
from tuning.workloads import WHOLE_MODELS, trainable


def ideal_model_of(converted) -> keras.Model:
    """The ideal model: each depthwise convolution replaced by a strided slice times a
    scale, a lower bound on the time of any algorithm for those layers. All other layers
    are the converted model's."""
    ideal = keras_diagwise.convert(
        converted, filters=is_depthwise, plan="native", copy=True, verbose=0
    )
    for layer in filter(is_depthwise, ideal.layers):
        layer.call = functools.partial(slice_and_scale, layer)
    return ideal


def is_depthwise(layer) -> bool:
    return isinstance(layer, keras.layers.DepthwiseConv2D)


def slice_and_scale(layer, inputs):
    """A tensor in the shape of the layer's outputs, at the least cost."""
    height, width = layer.compute_output_shape(inputs.shape)[1:3]
    down, across = layer.strides
    bottom, right = down * (height - 1) + 1, across * (width - 1) + 1
    pixels = inputs[:, :bottom:down, :right:across]
    return pixels * layer.kernel[0, 0, :, 0]


def has_ideal_model(model) -> bool:
    """Whether `ideal_model_of` replaces all depthwise convolutions of a model."""
    kinds = {each.layer for each in keras_diagwise.summary(model)}
    return (
        keras.backend.backend() == "jax"
        and "DiagonalwiseDepthwiseConv2D" in kinds
        and "DiagonalwiseSeparableConv2D" not in kinds
    )


def batch_of(image_size: int, batch_size: int):
    """Images and labels from a fixed seed."""
    generator = np.random.default_rng(0)
    shape = (batch_size, image_size, image_size, 3)
    images = generator.standard_normal(shape, "float32")
    return images, generator.integers(0, 10, batch_size)


def steps_of(model, images, labels) -> dict:
    return {
        "train": lambda: model.train_on_batch(images, labels),
        "predict": lambda: model.predict_on_batch(images),
    }


def take_a_step() -> None:
    """Runs a step of a tiny model, as warm-up of the process."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    model.train_on_batch(np.ones((2, 4)), np.ones((2, 1)))


def use_the_best_stock() -> None:
    """Applies settings that a user can make by hand, to stock and converted alike."""
    if has_driver() and keras.backend.backend() == "torch":
        backends.active.set_flags({**backends.active.flags(), "cudnn_benchmark": True})


def peak_of(step) -> int | None:
    """Peak bytes of a step on a GPU, or `None` if the backend does not count them."""
    if not (has_driver() and keras.backend.backend() == "torch"):
        return None
    import torch

    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated()


def measured(name: str, options: argparse.Namespace) -> dict:
    """Figures of stock against converted, first steps, and the time to tune."""
    image_size, batch_size = options.image_size, options.batch_size
    stock = trainable(name, image_size)
    converted = keras_diagwise.convert(stock, copy=True, verbose=0)
    report = keras_diagwise.tune(
        converted, batch_size=batch_size, budget=options.budget, verbose=0
    )
    images, labels = batch_of(image_size, batch_size)
    models = {"stock": stock, "converted": converted}
    steps = {each: steps_of(model, images, labels) for each, model in models.items()}
    take_a_step()
    first = {}
    for each, of_model in steps.items():
        started = time.perf_counter()
        of_model["train"]()
        first[each] = time.perf_counter() - started
    peaks = {each: peak_of(of_model["train"]) for each, of_model in steps.items()}
    if has_ideal_model(converted):
        steps["ideal"] = steps_of(ideal_model_of(converted), images, labels)
    figures = {
        step: compared(
            interleaved(
                {each: of_model[step] for each, of_model in steps.items()},
                (),
                seconds=options.seconds,
                min_rounds=8,
            )
        )
        for step in ("train", "predict")
    }
    plans = keras_diagwise.summary(converted, batch_size=batch_size)
    return {
        "environment": environment_of(converted).to_dict(),
        "first_step_s": first,
        "peak_bytes": peaks,
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
    parser.add_argument("--budget", type=float, help="seconds to tune a model")
    parser.add_argument("--stop-after", type=float, default=float("inf"))
    options = parser.parse_args()
    until = time.monotonic() + options.stop_after
    use_the_best_stock()
    touch_memory()
    model = keras.Sequential([keras.Input((4,))])
    folder = device_folder(environment_of(model).to_dict())
    memory = "-huge-pages" if in_huge_pages() else ""
    records = Records(folder / f"models-{keras.backend.backend()}{memory}.jsonl")
    for policy in options.policies.split(","):
        keras.config.set_dtype_policy(policy)
        for name in options.names.split(","):
            key = [name, options.image_size, options.batch_size, policy]
            if key in records:
                continue
            if time.monotonic() > until:
                raise SystemExit(OVER)
            figures = measured(name, options)
            records.add(key, **figures)
            print(*key, f"{figures['train']['speedup']:.2f}×", flush=True)
    print_table(records)


def print_table(records: Records) -> None:
    """Prints a row for each model, and the mean."""
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
