"""The figures of `keras-diagwise benchmark`, in JSON's types."""

from __future__ import annotations

import keras

from keras_diagwise.models.benchmark import Phase, benchmark
from keras_diagwise.models.environment import environment_of
from keras_diagwise.models.summary import summary
from keras_diagwise_cli.batch_size import batch_size_of
from keras_diagwise_cli.environment_record import environment_record
from keras_diagwise_cli.model_input import converted


def benchmark_figures(
    model: keras.Model, batch_size: int | None, seconds: float, phase: Phase
) -> dict:
    """The times of a model's steps, and the plans that it ran.

    Args:
        model: the model, stock or converted.
        batch_size: images in a step; `None` lets `batch_size_of` choose.
        seconds: how long each kind of step is timed.
        phase: shows progress.
    """
    model = converted(model)
    size, where_from = batch_size_of(model, batch_size)
    plans = summary(model, batch_size=size)
    found = benchmark(model, batch_size=size, seconds=seconds, phase=phase)
    return {
        "model": model.name,
        "batch_size": size,
        "batch_size_is": where_from,
        "environment": environment_record(environment_of(model)),
        **found.to_dict(),
        "layers": [
            {
                "path": each.path,
                "plan": None if each.plan is None else each.plan.to_config(),
                "rung": each.rung,
            }
            for each in plans
        ],
        "runs_native_only": all(
            each.plan is None or each.plan.is_native for each in plans
        ),
    }
