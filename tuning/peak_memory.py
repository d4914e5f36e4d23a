"""Peak memory of a training step under XLA, stock against converted.

    KERAS_BACKEND=jax python -m tuning.peak_memory [--names MobileNetV2,…]

XLA reports it for the compiled step; nothing runs. Appends a line to
tuning/results/<device>/peak-memory-jax.jsonl for each model; known models are not
compiled again.
"""

from __future__ import annotations

import keras

import keras_diagwise
from keras_diagwise.models.environment import environment_of
from tuning.models import batch_of
from tuning.steps import BATCH_SIZE, IMAGE_SIZE, record_models, training_step
from tuning.workloads import WHOLE_MODELS, trainable


def xla_peak(model: keras.Model, images, labels) -> int:
    """Bytes of arguments, outputs and temporaries of the compiled step."""
    step, arguments = training_step(model, images, labels)
    analysis = step.lower(*arguments).compile().memory_analysis()
    return (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )


def peaks_of(name: str) -> dict:
    """Peak memory of a model, stock and converted."""
    stock = trainable(name, IMAGE_SIZE)
    models = {
        "stock": stock,
        "converted": keras_diagwise.convert(stock, copy=True, verbose=0),
    }
    images, labels = batch_of(IMAGE_SIZE, BATCH_SIZE)
    peaks = {each: xla_peak(model, images, labels) for each, model in models.items()}
    return {
        "environment": environment_of(models["converted"]).to_dict(),
        **{f"{each}_MiB": peak / 2**20 for each, peak in peaks.items()},
        "converted_over_stock": peaks["converted"] / peaks["stock"],
    }


def main() -> None:
    record_models("peak-memory-jax", WHOLE_MODELS, __doc__, peaks_of)


if __name__ == "__main__":
    main()
