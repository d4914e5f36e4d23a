"""The whole model's step, stock against converted: what loses there goes back to
native, whatever its problems' own timings say."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import keras
import numpy as np

from keras_diagwise import backends
from keras_diagwise.conductor import conductor
from keras_diagwise.layers.family import Diagonalwise
from keras_diagwise.models.convert import convert, revert, swap
from keras_diagwise.models.problems import uses_in
from keras_diagwise.models.report import ModelCheck
from keras_diagwise.planning.decision import Decision
from keras_diagwise.planning.plan import NATIVE, Plan
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.tuner.measure import interleaved
from keras_diagwise.tuner.tuner import MEASURING, least_ratio, now

Choice = TypeVar("Choice")
PassOfProblem = tuple[Problem, str]

LOSES = 1.03
"""A model that takes so many times stock's step, by the 95 % bound, loses."""

SECONDS_TO_COMPILE = 30.0
SECONDS_OF_TRIAL = 6.0
LEAST_ROUNDS = 5
MOST_TRIALS = 12


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
) -> tuple[ModelCheck, list[Decision]]:
    """Times a model's step, stock against converted by decisions, on random inputs.

    Args:
        model: the model; it is not changed.
        decisions: what was decided, by problem.
        batch_size: of a step.
        training: whether a step trains or predicts.
        until: the `time.monotonic()` at which no further trial begins.

    Returns:
        What was seen, and the decisions that are overruled by it.
    """
    if not getattr(model, "inputs", None):
        return ModelCheck(skipped="it is no graph of layers"), []
    if backends.active.needs_other_processes():
        return ModelCheck(skipped="its step needs other processes"), []
    expected = SECONDS_TO_COMPILE + 3 * LEAST_ROUNDS * native_seconds(decisions)
    if time.monotonic() + expected > until:
        return ModelCheck(skipped="there was no time left for it"), []
    try:
        race = Race(model, decisions, batch_size, training, until)
        trial = race.trial((), last=True)
    except Exception as error:  # whatever a model does that can't be copied or fed
        return ModelCheck(skipped=reason_of(error)), []
    overruled: Sequence[PassOfProblem] = ()
    if trial.slower > LOSES:  # once more: what is overruled stays so
        trial = race.trial((), last=True)
    if trial.slower > LOSES:
        overruled = losers(race)
        reason = f"a whole model took {trial.slower:.2f} times stock's step by it"
        trial = race.trial(overruled, last=True)
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


def native_seconds(decisions: Mapping[Problem, Decision]) -> float:
    """What native takes for every problem once."""
    return sum(
        comparison.seconds.get("native", 0.0)
        for decision in decisions.values()
        for comparison in decision.passes.values()
    )


def overrule(decision: Decision, pass_name: str, reason: str) -> Decision:
    """A decision by which native serves in a pass."""
    comparison = dataclasses.replace(
        decision.passes[pass_name], measured=now(), overruled=reason
    )
    return Decision(decision.problem, {pass_name: comparison})


class Race:
    """A stock model and its converted twin, on the same random inputs."""

    def __init__(self, model, decisions, batch_size, training, until):
        self._decisions = decisions
        self._batch_size = batch_size
        self._until = until
        self._trials = 0
        stock = revert(model)
        self._converted = convert(stock, plan=NATIVE, verbose=0)
        models = {"stock": stock, "converted": self._converted}
        self._steps = steps_of(models, model, batch_size, training)

    @property
    def choices(self) -> list[PassOfProblem]:
        """What is not native, problem by problem."""
        return [
            (problem, pass_name)
            for problem, decision in self._decisions.items()
            for pass_name in PASSES
            if str(conductor.plan_of(decision)[pass_name]) != "native"
        ]

    def trial(self, overruled: Sequence[PassOfProblem], last: bool = False) -> Trial:
        """Times both, with native in place of what is overruled.

        Raises:
            OutOfTimeError: if it may not begin, unless it is the last.
        """
        over = self._trials >= MOST_TRIALS or time.monotonic() >= self._until
        if over and not last:
            raise OutOfTimeError
        self._trials += 1
        self._run_without(set(overruled))
        with MEASURING:
            samples = interleaved(
                self._steps, (), seconds=SECONDS_OF_TRIAL, least_rounds=LEAST_ROUNDS
            )
        return Trial(
            statistics.median(samples["stock"]),
            statistics.median(samples["converted"]),
            least_ratio(samples["converted"], samples["stock"]),
        )

    def _run_without(self, overruled: set[PassOfProblem]) -> None:
        plans: dict[int, tuple[keras.layers.Layer, type, Plan]] = {}
        for use in uses_in(self._converted, self._batch_size):
            decision = self._decisions.get(use.problem) if use.problem else None
            if decision is not None and isinstance(use.layer, Diagonalwise):
                plan = plan_without(decision, overruled)
                plans[id(use.layer)] = use.layer, type(use.layer), plan
        swap(self._converted, list(plans.values()))


def plan_without(decision: Decision, overruled: set[PassOfProblem]) -> Plan:
    """A decision's plan with native for the passes that are overruled."""
    plan = conductor.plan_of(decision)
    return Plan(
        **{
            name: "native" if (decision.problem, name) in overruled else str(plan[name])
            for name in PASSES
        }
    )


def losers(race: Race) -> list[PassOfProblem]:
    """The choices to overrule so that a model does not lose: all, if a few can't be
    found."""
    choices = race.choices
    try:
        return fewest_losers(choices, lambda out: race.trial(out).slower > LOSES)
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


def steps_of(
    models: Mapping[str, keras.Model],
    like: keras.Model,
    batch_size: int,
    training: bool,
) -> dict[str, Callable[[], object]]:
    """A step of each of several twins, on the same random inputs.

    Args:
        models: the twins, by name; they are compiled anew.
        like: the model that says how they are compiled.
        batch_size: of a step.
        training: whether a step trains or predicts.

    Raises:
        ValueError: if the shape of an input is not known.
    """
    generator = np.random.default_rng(0)
    inputs = [random_input(generator, each, batch_size) for each in like.inputs]
    outputs = [np.zeros((batch_size, *each.shape[1:])) for each in like.outputs]
    modes = {name: getattr(like, name) for name in ("jit_compile", "run_eagerly")}
    steps = {}
    for name, each in models.items():
        each.compile(keras.optimizers.SGD(1e-6), "mse", **modes)
        steps[name] = step_of(each, inputs, outputs, training)
    return steps


def step_of(model, inputs, outputs, training: bool) -> Callable[[], object]:
    """One step of a model, and whatever it returns."""
    # A Sequential tells no structure, and needs none.
    is_plain = isinstance(model, keras.Sequential)
    given = inputs[0] if is_plain else keras.tree.pack_sequence_as(model.input, inputs)
    if not training:
        return lambda: model.predict_on_batch(given)
    expected = outputs if len(outputs) > 1 else outputs[0]
    return lambda: model.train_on_batch(given, expected)


def random_input(generator, tensor, batch_size: int) -> np.ndarray:
    """What an input can be fed with.

    Raises:
        ValueError: if its shape is not known.
    """
    shape = (batch_size, *tensor.shape[1:])
    if None in shape:
        raise ValueError(f"the shape of its input {tensor.name!r} is not known")
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype.startswith(("int", "uint", "bool")):
        return np.zeros(shape, dtype)
    return generator.standard_normal(shape).astype("float32")
