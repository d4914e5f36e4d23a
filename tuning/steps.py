"""A model's training step and prediction as JAX compiles them, without running them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def ready_to_train(model: keras.Model, images, labels) -> tuple:
    """The state of a model that is compiled in Keras' sense, before its first step."""
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
    """The step, jitted as Keras does it, and what it is called with."""
    import jax

    state = ready_to_train(model, images, labels)
    return jax.jit(model.train_step, donate_argnums=0), (state, (images, labels))


def prediction(model: keras.Model, images, labels) -> tuple[Any, tuple]:
    """A prediction, jitted, and what it is called with."""
    import jax

    trainable, frozen, *_ = ready_to_train(model, images, labels)

    def predict(trainable, frozen, images):
        return model.stateless_call(trainable, frozen, images, training=False)[0]

    return jax.jit(predict), (trainable, frozen, images)


STEPS: dict[str, Callable] = {"train": training_step, "predict": prediction}
