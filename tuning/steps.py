"""A model's training step and prediction as JAX compiles them, and their records."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

import keras

from keras_diagwise.models.environment import environment_of
from tuning.records import Records, device_folder

IMAGE_SIZE, BATCH_SIZE = 96, 16


def ready_to_train(model: keras.Model, images, labels) -> tuple:
    """The state of a model that Keras has compiled, before its first step."""
    model.build(images.shape)
    model.optimizer.build(model.trainable_variables)
    model._symbolic_build(data_batch=(images, labels))
    return tuple(
        [variable.value for variable in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )


def training_step(model: keras.Model, images, labels) -> tuple[Any, tuple]:
    """The step, jitted as by Keras, and its arguments."""
    import jax

    state = ready_to_train(model, images, labels)
    return jax.jit(model.train_step, donate_argnums=0), (state, (images, labels))


def prediction(model: keras.Model, images, labels) -> tuple[Any, tuple]:
    """A prediction, jitted, and its arguments."""
    import jax

    trainable, frozen, *_ = ready_to_train(model, images, labels)

    def predict(trainable, frozen, images):
        return model.stateless_call(trainable, frozen, images, training=False)[0]

    return jax.jit(predict), (trainable, frozen, images)


STEPS: dict[str, Callable] = {"train": training_step, "predict": prediction}


def record_models(
    part: str,
    names: Iterable[str],
    description: str,
    figures_of: Callable[[str], dict],
) -> None:
    """Adds a record for each model that a part's results of this device lack.

    `--names` chooses the models.

    Args:
        part: name of the file of results.
        names: default models.
        description: its first line is the description in `--help`.
        figures_of: measures a model, given its name.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--names", default=",".join(names))
    options = parser.parse_args()
    model = keras.Sequential([keras.Input((4,))])
    folder = device_folder(environment_of(model).to_dict())
    records = Records(folder / f"{part}.jsonl")
    for name in options.names.split(","):
        key = [name, IMAGE_SIZE, BATCH_SIZE]
        if key not in records:
            figures = figures_of(name)
            records.add(key, **figures)
            print(name, figures, flush=True)
            keras.utils.clear_session()
