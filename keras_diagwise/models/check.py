"""The whole model's step, stock against converted: what loses there goes back to
native, whatever its problems' own timings say."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import keras

from keras_diagwise import backends
from keras_diagwise.decision import Decision
from keras_diagwise.layers.base import ours_for
from keras_diagwise.models.example import example_of
from keras_diagwise.models.problems import Shapes, uses_in
from keras_diagwise.models.report import ModelCheck
from keras_diagwise.models.snapshot import NotRestoredError, restored
from keras_diagwise.models.variants import Variant, as_stock, by_plans, step_of
from keras_diagwise.ops import dispatcher
from keras_diagwise.plan import NATIVE, Plan
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.tuner.measure import interleaved
from keras_diagwise.tuner.tuner import MEASURING, least_ratio, now

Choice = TypeVar("Choice")
PassOfProblem = tuple[Problem, str]

LOSES = 1.03
"""A model that takes so many times stock's step, by the 95 % bound, loses."""

SECONDS_TO_COMPILE = {"xla": 0.06, "graph": 0.03, "inductor": 0.3, "eager": 0.0}
"""A layer, by compiler mode. A first step of MobileNetV2, of 155 layers, took 8.7 s on
JAX on two cores (`tuning/results/acceptance-jax.json`)."""
CALLS_BEFORE = 2
"""A step is called to warm up before its first round."""

SECONDS_OF_TRIAL = 6.0
MIN_ROUNDS = 5
MAX_TRIALS = 12


class OutOfTimeError(Exception):
    """There is no time for a further trial."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """Stock and converted, timed against each other.

    Attributes:
        stock_seconds: median time of the stock model's step.
        converted_seconds: of the converted one's.
        slower: how many times stock's step the converted one takes at least, by
            the 95 % bound of the paired rounds.
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
    """Times a model's step, stock against converted by decisions.

    The model itself runs, in turn as the one and the other, and is then put back as it
    was in every part, also after an exception or Ctrl-C.

    Args:
        model: the model.
        decisions: what was decided, by problem.
        batch_size: of a step.
        training: whether a step trains or predicts.
        until: the `time.monotonic()` at which no further trial begins.
        data: a batch as `train_on_batch` takes it; random numbers, if it is left out.
        shapes: of the inputs that layers were seen to be called on, see `uses_in`.

    Returns:
        What was seen, and the decisions that are overruled by it.
    """
    if backends.active.needs_other_processes(model):
        return ModelCheck(skipped="its step needs other processes"), []
    if time.monotonic() + expected_seconds(model, decisions) > until:
        return ModelCheck(skipped="there was no time left for it"), []
    uses = uses_in(model, batch_size, shapes)
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


def judgement(
    trials: StepTrials, decisions: Mapping[Problem, Decision]
) -> tuple[ModelCheck, list[Decision]]:
    """What the trials come to, and the decisions that it overrules."""
    trial = trials.run((), last=True)
    overruled: Sequence[PassOfProblem] = ()
    if trial.slower > LOSES:  # once more: what is overruled stays so
        trial = trials.run((), last=True)
    if trial.slower > LOSES:
        overruled = losers(trials)
        reason = f"a whole model took {trial.slower:.2f} times stock's step by it"
        trial = trials.run(overruled, last=True)
    check = ModelCheck(
        trial.stock_seconds,
        trial.converted_seconds,
        trial.stock_seconds / trial.converted_seconds,
        tuple(f"{pass_name} of {problem}" for problem, pass_name in overruled),
    )
    return check, [
        overrule(decisions[problem], pass_name, reason)
        for problem, pass_name in overruled
    ]


def reason_of(error: Exception) -> str:
    """The first line of what an error says, without its full stop."""
    said = str(error).strip().splitlines()
    return (said[0] if said else type(error).__name__).rstrip(".")


def expected_seconds(
    model: keras.Model, decisions: Mapping[Problem, Decision]
) -> float:
    """What a check takes at least: both steps are compiled, and timed in turn. The
    convolutions were measured; the rest of a step takes about as long as they."""
    mode = backends.active.compiler_mode_of(model)
    layers = len(backends.keras_internals.flatten_layers(model))
    compiling = 2 * layers * SECONDS_TO_COMPILE.get(mode, 0.0)
    passes = [each for one in decisions.values() for each in one.passes.values()]
    stock = sum(each.seconds.get("native", 0.0) for each in passes)
    best = sum(min(each.seconds.values(), default=0.0) for each in passes)
    rounds = MIN_ROUNDS + CALLS_BEFORE
    return compiling + max(SECONDS_OF_TRIAL, 2 * rounds * (stock + best))


def overrule(decision: Decision, pass_name: str, reason: str) -> Decision:
    """A decision by which native serves in a pass."""
    comparison = dataclasses.replace(
        decision.passes[pass_name], measured=now(), overruled=reason
    )
    return Decision(decision.problem, {pass_name: comparison})


class StepTrials:
    """A model's step, stock and converted, in turn on the same batch.

    Args:
        model: the model, which is not what it was afterwards, see `snapshot`.
        decisions: what was decided, by problem.
        uses: where the model poses these.
        step: a step of the model.
        until: the `time.monotonic()` at which no further trial begins.
    """

    def __init__(self, model, decisions, uses, step, until):
        self._decisions, self._uses = decisions, uses
        self._until = until
        self._trials = 0
        self._converted = Variant(model, [], step)
        stock = Variant(model, [as_stock(use.layer) for use in uses], step)
        self._steps = {"stock": stock, "converted": self._converted}

    @property
    def choices(self) -> list[PassOfProblem]:
        """What is not native, problem by problem."""
        return [
            (problem, pass_name)
            for problem, decision in self._decisions.items()
            for pass_name in PASSES
            if str(dispatcher.plan_of(decision)[pass_name]) != "native"
        ]

    def run(self, overruled: Sequence[PassOfProblem], last: bool = False) -> Trial:
        """Times both, with native in place of what is overruled.

        Raises:
            OutOfTimeError: if it may not begin, unless it is the last.
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
        layers = {id(use.layer): use.layer for use in self._uses}
        plans: dict[int, dict[str, str | Plan]] = {
            key: dict.fromkeys(ours_for(layer).PLANS, NATIVE)
            for key, layer in layers.items()
        }
        for use in self._uses:
            decision = self._decisions.get(use.problem) if use.problem else None
            if decision is not None:
                plan = plan_without(decision, overruled)
                plans[id(use.layer)][use.role] = plan
        self._converted.become([by_plans(layers[key], plans[key]) for key in layers])


def plan_without(decision: Decision, overruled: set[PassOfProblem]) -> Plan:
    """A decision's plan with native for the passes that are overruled."""
    plan = dispatcher.plan_of(decision)
    return Plan(
        **{
            name: "native" if (decision.problem, name) in overruled else str(plan[name])
            for name in PASSES
        }
    )


def losers(trials: StepTrials) -> list[PassOfProblem]:
    """The choices to overrule so that a model does not lose: all, if a few can't be
    found."""
    choices = trials.choices
    try:
        return fewest_losers(choices, lambda out: trials.run(out).slower > LOSES)
    except OutOfTimeError:
        return choices


def fewest_losers(
    choices: Sequence[Choice], loses: Callable[[Sequence[Choice]], bool]
) -> list[Choice]:
    """A few of the choices without which the model no longer loses, by bisection:
    of two halves the one whose absence ends the loss, or both.

    Args:
        choices: by which together the model loses.
        loses: whether it still loses without those given.
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
