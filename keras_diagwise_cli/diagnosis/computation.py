"""Findings on what a child process and the algorithms compute."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Iterator, Mapping

from keras_diagwise.algorithms import ALGORITHMS, Algorithm
from keras_diagwise.durations import duration
from keras_diagwise.models.environment import environment_of_models
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.tuner.outcomes import judged, standard_error
from keras_diagwise.tuner.runner import FirstRun, PassTask, Runner
from keras_diagwise.tuner.subprocess_runner import (
    Child,
    NoChildError,
    SubprocessRunner,
)
from keras_diagwise_cli import tunables
from keras_diagwise_cli.diagnosis import huge_pages
from keras_diagwise_cli.diagnosis.finding import Finding

SECONDS_TO_COMPUTE = 60.0

WORTH_SETTING = 1.03
"""Least gain, by the 95 % bound, at which setting the variable is advised."""


def tuner() -> Finding:
    """Whether the tuner's child process starts and computes like this one."""
    try:
        child = Child()
        try:
            child.greet(float("inf"))
        finally:
            child.end()
    except NoChildError as error:
        remedy = (
            "The tuner then measures in its own process, which ends with a candidate "
            "that hangs or crashes. Allow Python to start processes, and this "
            "environment's packages to be imported in them."
        )
        text = f"no child process can be started: {error}"
        return Finding("tuner", "error", text, remedy)
    return Finding("tuner", "ok", "its child process starts and computes")


def memory() -> Finding:
    """Speedup of a step if the C library asks for huge pages."""
    if environment_of_models().device_kind != "cpu":
        text = "not measured: on this device memory does not come from the C library"
        return Finding("memory", "ok", text)
    if refusal := tunables.refusal():
        return Finding("memory", "ok", f"not measured: {refusal}")
    cost = huge_pages.step_cost()
    text = (
        f"a training step of a small model takes {duration(cost.as_it_is)}, and "
        f"{duration(cost.huge_pages)} with its memory in huge pages: "
        f"{cost.gain:.2f}× as fast, at least {cost.gain_at_least:.2f}× by the 95 % "
        "bound"
    )
    values = dataclasses.asdict(cost)
    if cost.gain_at_least < WORTH_SETTING:
        return Finding("memory", "ok", text, values=values)
    value = tunables.with_huge_pages()
    return Finding(
        "memory",
        "ok",
        text,
        "Start your scripts by `keras-diagwise run` instead of `python`, or set the "
        "variable below before Python starts.",
        values,
        f"export {tunables.VARIABLE}={shlex.quote(value)}",
    )


def algorithms(is_isolated: bool, advance: Callable[[float], None]) -> Finding:
    """Verifies each algorithm on a small problem, in all passes.

    Args:
        is_isolated: whether to compute in a child process.
        advance: called with the share of the work done.
    """
    runner = SubprocessRunner(SECONDS_TO_COMPUTE) if is_isolated else Runner()
    tasks = list(examinations())
    results: dict[tuple[str, Algorithm], FirstRun] = {}
    standard = {}
    try:
        for task, candidate in tasks:
            name, problem = task.pass_name, task.problem
            if name not in standard:
                mode = task.compiler_mode
                standard[name] = standard_error(runner, problem.dtype, name, mode)
            first_run = runner.examine(task, candidate)
            results[name, candidate] = judged(first_run, candidate, standard[name])
            advance(1 / len(tasks))
    finally:
        runner.close()
    return of_algorithms(results)


def examinations() -> Iterator[tuple[PassTask, Algorithm]]:
    """First candidate of each algorithm that supports a small problem, per pass."""
    problem = Problem.from_shapes((2, 8, 8, 8), (3, 3, 1, 8), padding="same")
    mode = environment_of_models().compiler_mode
    for pass_name in PASSES:
        for algorithm in ALGORITHMS.values():
            for candidate in algorithm.candidates(problem, pass_name):
                if candidate.refusal(problem) is None:
                    yield PassTask(problem, pass_name, mode), candidate
                    break


def of_algorithms(results: Mapping[tuple[str, Algorithm], FirstRun]) -> Finding:
    """The finding on all algorithms in all passes."""
    values = {
        f"{candidate}, {pass_name}": each.failure or "right"
        for (pass_name, candidate), each in results.items()
    }
    wrong = {key: each for key, each in results.items() if each.failure}
    if not wrong:
        names = ", ".join(dict.fromkeys(str(candidate) for _, candidate in results))
        text = f"{names}: correct in all passes"
        return Finding("algorithms", "ok", text, values=values)
    text = "\n".join(
        f"{candidate}, {pass_name}: {each.failure}: {each.reason}"
        for (pass_name, candidate), each in wrong.items()
    )
    remedy = (
        "The tuner does not choose these. Please report it, with all of this output."
    )
    only_native = all(str(candidate) == "native" for _, candidate in wrong)
    state = "warning" if only_native else "error"
    return Finding("algorithms", state, text, remedy, values)
