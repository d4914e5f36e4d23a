"""The queue of `on_miss="tune"`: problems that a trace met and could not measure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from keras_diagwise.environment import Environment
from keras_diagwise.planning.call import on_one_device
from keras_diagwise.problem import Problem

MAX_QUEUED = 1024


class TuningQueue:
    """Problems waiting for the next `tune()`, each with its environment, in the order
    in which they were met."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[Environment, Problem], None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[tuple[Environment, Problem]]:
        return iter(list(self._waiting))

    def add(self, environment: Environment, problem: Problem) -> None:
        """Queues a problem for the next `tune()`, unless `MAX_QUEUED` wait already."""
        if len(self._waiting) < MAX_QUEUED:
            self._waiting[environment, problem] = None

    def problems_in(
        self, environment: Environment, batch_sizes: Sequence[int], shards: int
    ) -> list[Problem]:
        """The queued problems of an environment.

        Args:
            environment: the environment.
            batch_sizes: batch sizes of whole steps, in place of an unknown batch.
            shards: number of devices that share a step's batch.
        """
        found: dict[Problem, None] = {}
        for known, problem in self:
            if known == environment and problem.batch is not None:
                found[problem] = None
            elif known == environment:
                for batch in batch_sizes:
                    whole = dataclasses.replace(problem, batch=batch)
                    found[on_one_device(whole, shards)] = None
        return list(found)

    def remove(self, environment: Environment, problem: Problem) -> None:
        """Removes a measured problem, and its entry without a batch."""
        for each in (problem, dataclasses.replace(problem, batch=None)):
            self._waiting.pop((environment, each), None)
