"""The suite's records, by problem, kind and model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from docs.build.measurements import KINDS, words
from keras_diagwise.durations import milliseconds
from keras_diagwise.problem import PASSES, Problem
from tuning.records import RESULTS, Records
from tuning.summary import best_peer, is_complete, median_of, total
from tuning.workloads import GROUPED, WHOLE_MODELS

SUITES = sorted(RESULTS.glob("*/suite-models-*.jsonl"))

NOISE = 1.03
"""Ratio to native up to which a plan does not count as slower."""


def suite_lines() -> Iterator[dict]:
    """Records of all runs of the suite, one for each problem in each run."""
    for path in SUITES:
        yield from Records(path).lines


def problem_lines(kind: str) -> list[dict]:
    """Records of one kind, one for each problem: that of the last run by file name."""
    found = {
        Problem.from_dict(line["key"]): line
        for line in suite_lines()
        if is_complete(line["kinds"].get(kind, {}))
    }
    return list(found.values())


def ratios_of(kind: str) -> dict[str, list[float]]:
    """Native over plan for each problem, all passes together, by model. Models with an
    unmeasured problem are left out."""
    by_problem = {}
    for line in problem_lines(kind):
        found = line["kinds"][kind]
        problem = dataclasses.replace(Problem.from_dict(line["key"]), batch=None)
        by_problem[problem] = total(found) / total(found, found["plan"])
    ratios = {}
    for name, problems in json.loads(GROUPED.read_text()).items():
        keys = [
            dataclasses.replace(Problem.from_dict(each), batch=None)
            for each in problems
        ]
        if name in WHOLE_MODELS and keys and set(keys) <= set(by_problem):
            ratios[name] = [by_problem[key] for key in keys]
    return ratios


def over_best_peers() -> dict[Problem, tuple[float, dict]]:
    """JAX's plan over the fastest other backend's native for each problem, with its
    record; from the run in which the ratio is largest."""
    found = {}
    for line in suite_lines():
        ours, peer = line["kinds"].get("jax", {}), best_peer(line, "jax")
        if peer is None or not is_complete(ours):
            continue
        problem = Problem.from_dict(line["key"])
        ratio = total(ours, ours["plan"]) / peer[1]
        if ratio > found.get(problem, (0, None))[0]:
            found[problem] = ratio, line
    return found


def behind_peers() -> Iterator[tuple[str, ...]]:
    """Problems that another backend's native computes faster than JAX's plan: the
    ratio, the backend, and the pass that loses most."""
    for problem, (ratio, line) in over_best_peers().items():
        if ratio > 1:
            peer, _ = best_peer(line, "jax")
            lost = most_lost(line["kinds"]["jax"], line["kinds"][peer])
            yield str(problem), f"{ratio:.2f}", KINDS[peer], lost


def behind_native() -> Iterator[tuple[str, ...]]:
    """Problems that a backend's own native computes faster than its plan: the ratio,
    the backend, and the pass that loses most."""
    for kind, title in KINDS.items():
        for line in problem_lines(kind):
            found = line["kinds"][kind]
            ratio = total(found, found["plan"]) / total(found)
            if ratio > NOISE:
                problem = str(Problem.from_dict(line["key"]))
                yield problem, f"{ratio:.2f}", title, most_lost(found, found)


def most_lost(ours: dict, theirs: dict) -> str:
    """The pass in which a plan loses most against native, its algorithm, and the times
    of both."""
    lost = {
        name: (
            median_of(ours, name, ours["plan"][name]),
            median_of(theirs, name, "native"),
        )
        for name in PASSES
    }
    worst = max(lost, key=lambda name: lost[name][0] - lost[name][1])
    here, there = map(milliseconds, lost[worst])
    return f"{words(worst)}, `{ours['plan'][worst]}`: {here} ms against {there}"
