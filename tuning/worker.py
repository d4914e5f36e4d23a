"""Worker process of the suite, which tunes and times on one backend.

    python -m tuning.worker MODE FLAGS     (compiler mode; some of the backend's flags)

Reads requests as lines of JSON from stdin and writes answers to stdout; everything else
printed goes to stderr.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time

import keras_diagwise
from keras_diagwise import algorithms, backends
from keras_diagwise.algorithms import ALGORITHMS
from keras_diagwise.environment import Environment
from keras_diagwise.ops import dispatcher
from keras_diagwise.planning.planner import MARGIN_MEASURED
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.tuner.runner import PassTask, Runner
from keras_diagwise.tuner.tuner import Tuner
from tuning.answers import answer_requests
from tuning.models import batch_of, steps_of
from tuning.workloads import trainable

MIN_ROUNDS = 1


class Worker:
    """Answers requests, each by one method."""

    def __init__(self, compiler_mode: str, flags: dict):
        backends.active.set_flags({**backends.active.flags(), **flags})
        environment = Environment.current()
        self._environment = dataclasses.replace(
            environment, compiler_mode=compiler_mode
        )
        self._tuner = Tuner(dispatcher.store, self._environment)
        self._runner = Runner()

    def environment(self) -> dict:
        return self._environment.to_dict()

    def tune(self, problem: dict) -> dict:
        """Tunes a problem. Returns its plan, the time it took, and the candidates to
        time by pass: native, the plan's, and each algorithm's best."""
        started = time.monotonic()
        measured = self._tuner.measured
        decision = self._tuner.tune(Problem.from_dict(problem))
        plan = decision.plan(MARGIN_MEASURED)
        candidates = {}
        for name in PASSES:
            seconds = decision.passes[name].seconds
            best = {}
            for candidate in sorted(seconds, key=seconds.get, reverse=True):
                best[candidate.partition(":")[0]] = candidate
            ordered = [best[each] for each in ALGORITHMS if each in best]
            candidates[name] = list(dict.fromkeys([*ordered, str(plan[name])]))
        return {
            "plan": {name: str(plan[name]) for name in PASSES},
            "candidates": candidates,
            "seconds": time.monotonic() - started,
            "measured": self._tuner.measured - measured,
        }

    def time(self, problem: dict, pass_name: str, candidates, seconds: float) -> dict:
        """Interleaved samples of each candidate."""
        task = PassTask(
            Problem.from_dict(problem), pass_name, self._environment.compiler_mode
        )
        parsed = [algorithms.parse(each) for each in candidates]
        samples = self._runner.time(task, parsed, seconds, MIN_ROUNDS)
        return {str(each): taken for each, taken in samples.items()}

    def build(self, name: str, image_size: int, batch_size: int, converts: bool):
        """Builds a model, stock or converted, and runs a first step."""
        is_xla = self._environment.compiler_mode == "xla"
        model = trainable(name, image_size, jit_compile=is_xla)
        if converts:
            keras_diagwise.convert(model, verbose=0)
        self._step = steps_of(model, *batch_of(image_size, batch_size))["train"]
        self._step()

    def step(self) -> float:
        """Seconds of a training step of the built model."""
        started = time.perf_counter()
        self._step()
        return time.perf_counter() - started

    def least(self, problem: dict) -> float:
        """The roofline of a pass of a problem, in seconds."""
        asked = Problem.from_dict(problem)
        return self._tuner.roofline(asked.dtype).seconds(asked)


def main() -> None:
    worker = Worker(sys.argv[1], json.loads(sys.argv[2]))
    answer_requests(lambda request: getattr(worker, request[0])(*request[1:]))


if __name__ == "__main__":
    main()
