"""Batch size of a step, if the user does not give one."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable

import keras

from keras_diagwise.models.environment import environment_of
from keras_diagwise.models.problems import uses_in
from keras_diagwise.ops import dispatcher
from keras_diagwise.problem import Problem

DEFAULT = 32
"""Default of `fit` and `predict`."""

SOURCES = {
    "given": "as given",
    "measured": "the size that was measured",
    "default": "Keras's default, since none was given or measured",
}


def batch_size_of(model: keras.Model, given: int | None) -> tuple[int, str]:
    """The batch size and its key in `SOURCES`.

    The given one, else the one that most of the model's layers were measured for, else
    Keras's default.
    """
    if given is not None:
        return given, "given"
    measured = measured_batch_size(model)
    return (DEFAULT, "default") if measured is None else (measured, "measured")


def measured_batch_size(model: keras.Model) -> int | None:
    """The batch with which most of a model's problems were measured here; on a tie, the
    largest."""
    environment = environment_of(model)
    posed = {use.problem for use in uses_in(model, None)}
    counts: Counter[int] = Counter()
    for document in (dispatcher.store.document(), dispatcher.planner.shipped):
        known: Iterable[Problem] = document.entries.get(environment, {})
        for problem in known:
            batch = problem.batch
            if batch is not None and dataclasses.replace(problem, batch=None) in posed:
                counts[batch] += 1
    return max(counts, key=lambda batch: (counts[batch], batch), default=None)
