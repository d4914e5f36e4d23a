"""The figures of `keras-diagwise report`, in JSON's types."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import keras

from keras_diagwise import summary
from keras_diagwise.decision import Comparison, Decision, now
from keras_diagwise.environment import Environment
from keras_diagwise.models.environment import environment_of
from keras_diagwise.models.problems import why_not_measured
from keras_diagwise.models.summary import LayerPlan
from keras_diagwise.models.survey import REASONS
from keras_diagwise.ops import dispatcher
from keras_diagwise.plan import AUTO
from keras_diagwise.planning.source import PlanSource
from keras_diagwise.problem import PASSES
from keras_diagwise_cli.batch_size import batch_size_of
from keras_diagwise_cli.environment_record import environment_record

TIMES = ("native_seconds", "seconds", "least")


def report_figures(model: keras.Model, batch_size: int | None) -> dict:
    """The plan of each layer of a model, and the measurements.

    Args:
        model: the converted model.
        batch_size: images in a step; `None` lets `batch_size_of` choose.
    """
    environment = environment_of(model)
    batch_size, where_from = batch_size_of(model, batch_size)
    plans = summary(model, batch_size=batch_size)
    layers = [layer_figures(each, environment) for each in plans]
    return {
        "model": model.name,
        "batch_size": batch_size,
        "batch_size_is": where_from,
        "made": now(),
        "environment": environment_record(environment),
        "totals": totals(layers),
        "layers": layers,
        "left_alone": [
            {**dataclasses.asdict(each), "why": REASONS[each.reason]}
            for each in plans.skipped
        ],
    }


def layer_figures(line: LayerPlan, environment: Environment) -> dict:
    """A layer's plan, and the measurements here or those that its plan comes from."""
    source, decision = line.rung, line.decision
    measured_here = source == PlanSource.DECISION
    if source == PlanSource.LAYER and line.problem is not None:
        # The user gave the plan; a decision here can still tell its gain.
        answer = dispatcher.answer(line.problem, AUTO, environment)
        measured_here = answer.source == PlanSource.DECISION
        decision = answer.decision if measured_here else None
    passes = pass_figures(decision, line) if decision else {}
    return {
        "path": line.path,
        "class": line.layer,
        "stock_class": line.layer.removeprefix("Diagonalwise"),
        "problem": None if line.problem is None else line.problem.to_dict(),
        "problem_text": None if line.problem is None else str(line.problem),
        "plan": None if line.plan is None else line.plan.to_config(),
        "plan_text": None if line.plan is None else str(line.plan),
        "rung": source,
        "is_measured_here": measured_here and bool(passes),
        "cant_be_measured": why_not_measured(line.problem, environment),
        "measured_problem_text": None if decision is None else str(decision.problem),
        "passes": passes,
        **sums(passes.values() if measured_here else ()),
    }


def pass_figures(decision: Decision, line: LayerPlan) -> dict[str, dict]:
    """Measurements of each pass, and the algorithm that the layer runs."""
    return {
        name: comparison_figures(decision.passes[name], line.plan and line.plan[name])
        for name in PASSES
        if name in decision.passes
    }


def comparison_figures(comparison: Comparison, algorithm) -> dict:
    """The candidates of a pass, fastest first, and the one that runs."""
    chosen = None if algorithm is None else str(algorithm)
    seconds = comparison.seconds
    timed = sorted(seconds, key=lambda name: (seconds[name], name))
    others = [name for name in comparison.outcomes if name not in seconds]
    return {
        "algorithm": chosen,
        "native_seconds": seconds.get("native"),
        "seconds": seconds.get(chosen) if chosen else None,
        "least": comparison.roofline,
        "measured": comparison.measured,
        "overruled": comparison.overruled,
        "candidates": [
            {"name": name, **comparison.outcomes[name].to_dict()}
            for name in (*timed, *sorted(others))
        ],
    }


def sums(passes: Iterable[dict]) -> dict[str, float | None]:
    """Total times of the passes in which both native and the running algorithm were
    timed; `None` without any."""
    both = [each for each in passes if each["seconds"] and each["native_seconds"]]
    return {
        name: sum(each[name] or 0.0 for each in both) if both else None
        for name in TIMES
    }


def totals(layers: list[dict]) -> dict:
    """Totals over all layers measured here, by pass and overall."""
    measured = [each for each in layers if each["is_measured_here"]]
    return {
        "layers": len(layers),
        "measured": len(measured),
        "missing": sum(
            not each["is_measured_here"] and each["cant_be_measured"] is None
            for each in layers
        ),
        **sums(measured),
        "passes": {
            name: sums(
                each["passes"][name] for each in measured if name in each["passes"]
            )
            for name in PASSES
        },
    }
