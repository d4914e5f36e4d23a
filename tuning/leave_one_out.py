"""Measures the regret of taking the nearest measured problem's plan.

    python -m tuning.leave_one_out [DOCUMENT]

Each problem of a document of decisions is left out in turn, with those that differ from
it only in the batch, and the planner answers it from the others. That plan's time is
compared with the best in the problem's own measurements, and with native's, both of the
same run. A candidate that was not timed for the problem is timed here, with native and
the best. Writes tuning/results/leave-one-out-<backend>-<compiler mode>.json, and
leave-one-out-dense-… for the document's dense problems, if any.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from pathlib import Path

from keras_diagwise import algorithms
from keras_diagwise.decision import Comparison, Decision, Outcome
from keras_diagwise.planning.planner import MARGIN_MEASURED, SHIPPED, Planner
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.similarity import bucket
from keras_diagwise.storage.document import Document
from keras_diagwise.tuner.measure import least_ratio
from keras_diagwise.tuner.runner import PassTask, Runner
from tuning.ratios import geometric_mean, touch_memory
from tuning.records import results_name, write

NOTHING = Document()


@dataclasses.dataclass(frozen=True)
class Regret:
    """Cost of the plan that the neighbours chose.

    Attributes:
        problem: the problem left out.
        plan: the neighbours' plan.
        over_best: its time over that of the problem's own plan.
        over_native: its time over native's.
        slower_at_most: upper 95 % bound of the worst pass over native; 1 where native
            serves, or all passes are surely faster.
    """

    problem: Problem
    plan: str
    over_best: float
    over_native: float
    slower_at_most: float


def regret(document: Document, environment, decision: Decision) -> Regret:
    problem = decision.problem
    others = Document.of(
        environment,
        (each for _, each in document if not is_same_layer(each.problem, problem)),
    )
    answer = Planner(others, NOTHING).plan(problem, environment)
    own = decision.plan(MARGIN_MEASURED)
    chosen, best, native, slower = 0.0, 0.0, 0.0, 1.0
    for name in PASSES:
        candidate = str(answer.plan[name])
        comparison = decision.passes[name]
        if not is_compared(comparison, candidate):
            comparison = timed(problem, name, environment, candidate, str(own[name]))
        outcomes = comparison.outcomes
        chosen += outcomes[candidate].seconds
        best += outcomes[str(own[name])].seconds
        native += outcomes["native"].seconds
        if candidate != "native":
            slower = max(slower, 1 / outcomes[candidate].gain)
    return Regret(problem, str(answer.plan), chosen / best, chosen / native, slower)


def is_compared(comparison: Comparison, candidate: str) -> bool:
    """Whether a candidate was timed against native to the end."""
    if candidate not in comparison.seconds:
        return False
    return candidate == "native" or comparison.outcomes[candidate].gain is not None


def is_same_layer(one: Problem, other: Problem) -> bool:
    """Whether two problems differ at most in the batch."""
    return dataclasses.replace(one, batch=None) == dataclasses.replace(
        other, batch=None
    )


def timed(problem, pass_name, environment, *names) -> Comparison:
    """Times native and some candidates, interleaved."""
    task = PassTask(problem, pass_name, environment.compiler_mode)
    candidates = [algorithms.parse(n) for n in dict.fromkeys(("native", *names))]
    samples = Runner().time(task, candidates, seconds=1.0, min_rounds=5)
    native = samples[candidates[0]]
    outcomes = {
        str(each): Outcome(
            seconds=statistics.median(taken), gain=least_ratio(native, taken)
        )
        for each, taken in samples.items()
    }
    return Comparison(outcomes, "now")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("document", type=Path, nargs="?")
    options = parser.parse_args()
    path = options.document or next(SHIPPED.glob("*.json"))
    document = Document.read(path)
    (environment,) = document.environments()
    touch_memory()
    for part, is_dense in (("leave-one-out", False), ("leave-one-out-dense", True)):
        decisions = [d for _, d in document if d.problem.is_dense is is_dense]
        if decisions:
            result = summed_up(document, environment, decisions)
            result = {"document": path.name, **result}
            write(results_name(part, environment), result)
            for key, value in result.items():
                if key not in ("environment", "each"):
                    print(f"{part}, {key}: {value}")


def summed_up(document: Document, environment, decisions: list[Decision]) -> dict:
    """Regret over the problems of a document that have neighbours."""
    buckets = [bucket(decision.problem) for decision in decisions]
    found = [
        regret(document, environment, decision)
        for decision in decisions
        if buckets.count(bucket(decision.problem)) > 1
    ]
    return {
        "environment": environment.to_dict(),
        "problems": len(found),
        "regret_geometric_mean": geometric_mean(each.over_best for each in found),
        "regret_worst": max(each.over_best for each in found),
        "over_native_worst": max(each.over_native for each in found),
        "slower_than_native_95_percent_at_most": max(
            each.slower_at_most for each in found
        ),
        "not_native": sum(each.plan != "native" for each in found),
        "each": [
            {**dataclasses.asdict(each), "problem": str(each.problem)}
            for each in sorted(found, key=lambda each: -each.over_best)
        ],
    }


if __name__ == "__main__":
    main()
