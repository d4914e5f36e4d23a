"""The target of `tune`: a model's problems, or given ones."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_diagwise import backends
from keras_diagwise.environment import Environment
from keras_diagwise.models.calls import shapes_called
from keras_diagwise.models.environment import environment_of, environment_of_models
from keras_diagwise.models.load import load
from keras_diagwise.models.problems import Shapes, uses_in, why_not_measured
from keras_diagwise.ops import dispatcher
from keras_diagwise.planning.dispatch import is_measurable, why_not_served
from keras_diagwise.problem import Problem

NOTHING_TO_MEASURE = "keras_diagwise.tune found nothing to measure"


@dataclasses.dataclass(frozen=True)
class Target:
    """The problems to tune, and where they come from.

    Attributes:
        environment: where it runs.
        uses: the problems, each with the paths of the layers that pose it.
        skipped: layers that can't be measured, with the reason.
        model: the model, if there is one.
        data: a batch of the model, if one was given.
        shapes: input shapes that its layers were seen with, see `uses_in`.
    """

    environment: Environment
    uses: Mapping[Problem, tuple[str, ...]]
    skipped: tuple[tuple[str, str], ...] = ()
    model: keras.Model | None = None
    data: Any = None
    shapes: Shapes | None = None

    @property
    def problems(self) -> list[Problem]:
        """Each problem once, in the model's order."""
        return list(self.uses)


def standardize_target(
    model_or_problems, batch_sizes: Sequence[int], data: Any = None
) -> Target:
    """The first argument of `tune` as a target.

    Raises:
        TypeError: if it is neither a model, the name of one, nor problems.
        ValueError: if it is a model and there is no batch size, or a problem that
            can't be measured.
    """
    if isinstance(model_or_problems, str | Path):
        model_or_problems = load(model_or_problems)
    if isinstance(model_or_problems, keras.Model):
        if not batch_sizes:
            raise ValueError(
                "`batch_size` must be given for a model: the images in a step; or "
                "`data`, a batch. Received: batch_size=None, data=None"
            )
        return target_of_model(model_or_problems, batch_sizes, data)
    if isinstance(model_or_problems, Iterable):
        problems = list(model_or_problems)
        if all(isinstance(each, Problem) for each in problems):
            environment = environment_of_models()
            check_measurable(problems, environment)
            return Target(environment, dict.fromkeys(problems, ()))
    raise TypeError(
        "`model_or_problems` must be a Keras model, a .keras file, the name of a model "
        "of keras.applications, or problems. "
        f"Received: model_or_problems={model_or_problems!r}"
    )


def check_measurable(problems: Sequence[Problem], environment: Environment) -> None:
    """Checks that problems can be measured.

    Raises:
        ValueError: if a problem can't be measured.
    """
    if reason := why_not_served(environment):
        raise ValueError(
            f"Nothing can be measured here: {reason}. "
            f"Received: KERAS_BACKEND={environment.backend}. Set it to one of "
            f"{', '.join(backends.TRAINING)}."
        )
    for problem in problems:
        if reason := why_not_served(environment, problem):
            raise ValueError(
                f"Each problem must have a candidate besides native here: {reason}. "
                f"Received: problem={problem}"
            )
        if problem.batch is None or not is_measurable(problem):
            raise ValueError(
                "Each problem must have a batch, a spatial shape, a floating dtype and "
                f"an output. Received: problem={problem}"
            )
        dtype = backends.active.canonical_dtype(problem.dtype)
        if dtype != problem.dtype:
            raise ValueError(
                f"Each problem must have a dtype of the backend, which computes "
                f"{problem.dtype} in {dtype}. Received: problem={problem}. On JAX, "
                "set jax_enable_x64 for float64."
            )


def target_of_model(
    model: keras.Model, batch_sizes: Sequence[int], data: Any
) -> Target:
    """The problems of a model."""
    shapes = None if data is None else shapes_called(model, data)
    uses: dict[Problem, tuple[str, ...]] = {}
    skipped: dict[str, str] = {}
    environment = environment_of(model)
    for batch_size in batch_sizes:
        for use in uses_in(model, batch_size, shapes):
            reason = why_not_measured(use.problem, environment)
            if reason:
                skipped[use.path] = reason
            elif use.problem:
                uses[use.problem] = (*uses.get(use.problem, ()), use.path)
    if not uses and not skipped:
        warnings.warn(
            f"{NOTHING_TO_MEASURE} in {model.name!r}: it has no layer that a plan can "
            "run. keras_diagwise.summary(model) lists the layers left alone, and why.",
            stacklevel=4,
        )
    return Target(environment, uses, tuple(skipped.items()), model, data, shapes)


def with_queued(target: Target, batch_sizes: Sequence[int]) -> Target:
    """The target, with the problems that traces have queued in its environment."""
    shards = backends.active.step_shards(target.model)
    queued = dispatcher.queue.problems_in(target.environment, batch_sizes, shards)
    return dataclasses.replace(
        target, uses={**target.uses, **{p: target.uses.get(p, ()) for p in queued}}
    )
