"""Whole-model check: times a model's step, stock against converted.

Passes that make the model lose go back to native, whatever their own timings.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import keras
import msgspec

from keras_diagwise import backends
from keras_diagwise.decision import Decision, now
from keras_diagwise.layers.base import Diagonalwise, ours_for, plans_of
from keras_diagwise.models.example import example_of
from keras_diagwise.models.problems import Shapes, Use, uses_in
from keras_diagwise.models.report import ModelCheck
from keras_diagwise.models.snapshot import NotRestoredError, restored
from keras_diagwise.models.variants import Variant, as_stock, by_plans, step_of
from keras_diagwise.ops import dispatcher
from keras_diagwise.plan import AUTO, NATIVE, Plan
from keras_diagwise.problem import PASS_NAMES, PASSES, Problem
from keras_diagwise.tuner.measure import MEASURING, interleaved, least_ratio

Choice = TypeVar("Choice")
PassOfProblem = tuple[Problem, str]

LOSES = 1.03
"""A model loses if its step takes more than this multiple of the stock model's, by the
lower 95 % bound."""

SECONDS_TO_COMPILE = {"xla": 0.06, "graph": 0.03, "inductor": 0.3, "eager": 0.0}
"""Per layer, by compiler mode. The first step of MobileNetV2 (155 layers) took 9.2 s
on JAX on two cores (`tuning/results/acceptance-jax.json`)."""
CALLS_BEFORE = 2
"""Warm-up calls of a step before its first round."""

SECONDS_OF_TRIAL = 6.0
MIN_ROUNDS = 5
MAX_TRIALS = 12


class OutOfTimeError(Exception):
    """No time is left for another trial."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """Stock and converted, timed against each other.

    Attributes:
        stock_seconds: median time of the stock model's step.
        converted_seconds: median time of the converted model's step.
        slower: lower 95 % bound of converted over stock, from the paired rounds.
    """

    stock_seconds: float
    converted_seconds: float
    slower: float


def check_step(
    model: keras.Model,
    decisions: Mapping[Problem, Decision],
    *,
    batch_size: int,
    training: bool,
    until: float,
    data: Any = None,
    shapes: Shapes | None = None,
) -> tuple[ModelCheck, list[Decision]]:
    """Times a model's step, stock against converted by the decisions.

    The model itself runs, alternating between both variants, and is then restored in
    every part, also after an exception or Ctrl-C.

    Args:
        model: the model.
        decisions: the decisions, by problem.
        batch_size: batch of a step.
        training: whether a step trains or predicts.
        until: the `time.monotonic()` after which no new trial begins.
        data: a batch as `train_on_batch` takes it; random numbers by default.
        shapes: input shapes that the layers were seen with, see `uses_in`.

    Returns:
        The check, and the decisions that it overrules.
    """
    if backends.active.needs_other_processes(model):
        return ModelCheck(skipped="its step needs other processes"), []
    if time.monotonic() + expected_seconds(model, decisions) > until:
        return ModelCheck(skipped="there was no time left for it"), []
    uses = planned_by_decisions(uses_in(model, batch_size, shapes))
    problems = {use.problem for use in uses}
    decisions = {p: each for p, each in decisions.items() if p in problems}
    if not decisions:
        return ModelCheck(skipped="none of its layers follows these decisions"), []
    try:
        example = example_of(model, batch_size, data)
        with restored(model):
            step = step_of(model, example, training)
            trials = StepTrials(model, decisions, uses, step, until)
            return judgement(trials, decisions)
    except NotRestoredError:
        raise
    except Exception as error:  # whatever a model does that can't be fed or run
        return ModelCheck(skipped=reason_of(error)), []


def planned_by_decisions(uses: Sequence[Use]) -> list[Use]:
    """The uses whose plans the decisions choose: in a converted model those of its
    `"auto"` layers, in a stock model all."""
    ours = [use for use in uses if isinstance(use.layer, Diagonalwise)]
    if not ours:
        return list(uses)
    return [use for use in ours if getattr(use.layer, use.role) == AUTO]


def judgement(
    trials: StepTrials, decisions: Mapping[Problem, Decision]
) -> tuple[ModelCheck, list[Decision]]:
    """The check, from trials, and the decisions that it overrules."""
    trial = trials.run((), last=True)
    overruled: Sequence[PassOfProblem] = ()
    if trial.slower > LOSES:  # retry: an overruled pass stays overruled
        trial = trials.run((), last=True)
    if trial.slower > LOSES:
        overruled = losers(trials)
        reason = (
            "with it, the step of a whole model took at least "
            f"{trial.slower:.2f} times as long as the stock model's"
        )
        trial = trials.run(overruled, last=True)
    check = ModelCheck(
        trial.stock_seconds,
        trial.converted_seconds,
        trial.stock_seconds / trial.converted_seconds,
        tuple(f"{PASS_NAMES[each]} of {problem}" for problem, each in overruled),
    )
    return check, [
        overrule(decisions[problem], pass_name, reason)
        for problem, pass_name in overruled
    ]


def reason_of(error: Exception) -> str:
    """First line of an error's message, without its full stop."""
    said = str(error).strip().splitlines()
    return (said[0] if said else type(error).__name__).rstrip(".")


def expected_seconds(
    model: keras.Model, decisions: Mapping[Problem, Decision]
) -> float:
    """Lower estimate of a check's time: compile both steps, time them interleaved.

    The convolutions were measured; the rest of a step takes about as long.
    """
    mode = backends.active.compiler_mode_of(model)
    layers = len(backends.keras_internals.flatten_layers(model))
    compiling = 2 * layers * SECONDS_TO_COMPILE.get(mode, 0.0)
    passes = [each for one in decisions.values() for each in one.passes.values()]
    stock = sum(each.seconds.get("native", 0.0) for each in passes)
    best = sum(min(each.seconds.values(), default=0.0) for each in passes)
    rounds = MIN_ROUNDS + CALLS_BEFORE
    return compiling + max(SECONDS_OF_TRIAL, 2 * rounds * (stock + best))


def overrule(decision: Decision, pass_name: str, reason: str) -> Decision:
    """The decision with native serving one pass."""
    comparison = decision.passes[pass_name]
    comparison = msgspec.structs.replace(
        comparison,
        # It replaces the comparison even if that was dated by a clock ahead of ours.
        measured=max(now(), comparison.measured),
        overruled=reason,
    )
    return Decision(decision.problem, {pass_name: comparison})


class StepTrials:
    """A model's step, stock and converted, interleaved on the same batch.

    Args:
        model: the model; it is left changed, see `snapshot`.
        decisions: the decisions, by problem.
        uses: where the model poses these problems.
        step: a step of the model.
        until: the `time.monotonic()` after which no new trial begins.
    """

    def __init__(self, model, decisions, uses, step, until):
        self._decisions, self._uses = decisions, uses
        self._until = until
        self._trials = 0
        layers = {id(use.layer): use.layer for use in uses}
        self._layers = list(layers.values())
        self._given = {key: given_plans(layer) for key, layer in layers.items()}
        self._converted = Variant(model, [], step)
        stock = Variant(model, [as_stock(use.layer) for use in uses], step)
        self._steps = {"stock": stock, "converted": self._converted}

    @property
    def choices(self) -> list[PassOfProblem]:
        """Passes that do not run native, problem by problem."""
        return [
            (problem, pass_name)
            for problem, decision in self._decisions.items()
            for pass_name in PASSES
            if str(dispatcher.plan_of(decision)[pass_name]) != "native"
        ]

    def run(self, overruled: Sequence[PassOfProblem], last: bool = False) -> Trial:
        """Times both, with native in place of the overruled passes.

        Raises:
            OutOfTimeError: if no trial may begin and this is not the last.
        """
        over = self._trials >= MAX_TRIALS or time.monotonic() >= self._until
        if over and not last:
            raise OutOfTimeError
        self._trials += 1
        self._run_without(set(overruled))
        with MEASURING:
            samples = interleaved(
                self._steps, (), seconds=SECONDS_OF_TRIAL, min_rounds=MIN_ROUNDS
            )
        return Trial(
            statistics.median(samples["stock"]),
            statistics.median(samples["converted"]),
            least_ratio(samples["converted"], samples["stock"]),
        )

    def _run_without(self, overruled: set[PassOfProblem]) -> None:
        plans = {key: dict(given) for key, given in self._given.items()}
        for use in self._uses:
            decision = self._decisions.get(use.problem) if use.problem else None
            if decision is not None:
                plan = plan_without(decision, overruled)
                plans[id(use.layer)][use.role] = plan
        self._converted.become([by_plans(e, plans[id(e)]) for e in self._layers])


def given_plans(layer) -> dict[str, str | Plan]:
    """The plans of a layer's convolutions where no decision chooses them: its own, or
    native."""
    given: dict[str, str | Plan] = dict.fromkeys(ours_for(layer).PLANS, NATIVE)
    if isinstance(layer, Diagonalwise):
        given |= {name: each for name, each in plans_of(layer).items() if each != AUTO}
    return given


def plan_without(decision: Decision, overruled: set[PassOfProblem]) -> Plan:
    """A decision's plan, with native for the overruled passes."""
    plan = dispatcher.plan_of(decision)
    return Plan(
        **{
            name: "native" if (decision.problem, name) in overruled else str(plan[name])
            for name in PASSES
        }
    )


def losers(trials: StepTrials) -> list[PassOfProblem]:
    """Choices to overrule so that the model does not lose; all if time runs out."""
    choices = trials.choices
    try:
        return fewest_losers(choices, lambda out: trials.run(out).slower > LOSES)
    except OutOfTimeError:
        return choices


def fewest_losers(
    choices: Sequence[Choice], loses: Callable[[Sequence[Choice]], bool]
) -> list[Choice]:
    """Bisects for a small set of choices without which the model no longer loses.

    Recurses into the half whose absence ends the loss, or into both.

    Args:
        choices: the choices with which the model loses.
        loses: whether it still loses without the given ones.
    """
    if len(choices) < 2:
        return list(choices)
    middle = len(choices) // 2
    halves = choices[:middle], choices[middle:]
    for half in halves:
        if not loses(half):
            return fewest_losers(half, loses)
    first = fewest_losers(halves[0], lambda out: loses([*out, *halves[1]]))
    second = fewest_losers(halves[1], lambda out: loses([*out, *first]))
    return [*first, *second]
