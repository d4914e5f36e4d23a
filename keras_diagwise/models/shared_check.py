"""The whole-model check of a job, made by one of the workers that share a store."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from keras_diagwise.decision import Decision
from keras_diagwise.models.check import check_step, planned_by_decisions
from keras_diagwise.models.problems import uses_in
from keras_diagwise.models.report import ModelCheck
from keras_diagwise.models.target import Target
from keras_diagwise.problem import Problem
from keras_diagwise.storage.locations import digest_of
from keras_diagwise.tuner.tuner import Tuner


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of the target, shared by the workers of a job.

    Attributes:
        target: the tuning target.
        batch_sizes: images in a step; the last is used for the whole-model check.
        training: whether a step trains or predicts.
    """

    target: Target
    batch_sizes: Sequence[int]
    training: bool

    @property
    def digest(self) -> str:
        """A short name, equal in every worker."""
        return digest_of("step", *self._words)

    def digest_of_check(self, decisions: Mapping[Problem, Decision]) -> str:
        """A short name of its check, given the timings of its problems."""
        measured = (decisions[each].digest_of_timings for each in self.target.problems)
        return digest_of("check", *self._words, *measured, *self._apart())

    def _apart(self) -> list[str]:
        """The uses in the model whose plans no decision chooses, by their number, and
        their plans."""
        if self.target.model is None:
            return []
        uses = uses_in(self.target.model, self.batch_sizes[-1], self.target.shapes)
        followers = set(map(id, planned_by_decisions(uses)))
        return [
            f"{number} {getattr(use.layer, use.role, None)}"
            for number, use in enumerate(uses)
            if id(use) not in followers
        ]

    @property
    def _words(self) -> list[str]:
        uses = (f"{p.digest} {len(paths)}" for p, paths in self.target.uses.items())
        return [*map(str, (self.target.model is None, self.training)), *uses] + [
            str(size) for size in self.batch_sizes
        ]


def whole_model_check_when_free(
    step: Step, tuner: Tuner, until: float
) -> ModelCheck | None:
    """`whole_model_check`, once the leading worker is done or gone."""
    while True:
        with tuner.leased(step.digest) as is_ours:
            if is_ours:
                return whole_model_check(step, tuner, until)
        tuner.pause()


def whole_model_check(step: Step, tuner: Tuner, until: float) -> ModelCheck | None:
    """The whole-model check of the decisions for a step's problems: the one kept by an
    earlier call or another worker, or a new one."""
    if step.target.model is None:
        return None
    if not step.target.problems:
        return ModelCheck(skipped="none of its layers can be measured here")
    decisions = {each: tuner.known(each) for each in step.target.problems}
    name = step.digest_of_check(decisions)
    check = known_check(tuner, name)
    if check is not None:
        return check
    while check is None:
        with tuner.device() as is_free:
            if is_free:
                check = run_check(step, tuner, decisions, until)
        if not is_free:
            tuner.pause()
    if check.skipped is None:
        tuner.store.keep_check(tuner.environment, name, check.to_dict())
    return check


def known_check(tuner: Tuner, name: str) -> ModelCheck | None:
    """The check kept by another worker or an earlier call, if any."""
    known = tuner.store.check(tuner.environment, name)
    try:
        return ModelCheck.from_dict(known) if known else None
    except ValueError:
        return None


def run_check(
    step: Step, tuner: Tuner, decisions: Mapping[Problem, Decision], until: float
) -> ModelCheck:
    """Runs the whole-model check at the last batch size; keeps what it overrules."""
    assert step.target.model is not None
    tuner.close()
    check, overruled = check_step(
        step.target.model,
        {p: each for p, each in decisions.items() if step.target.uses[p]},
        batch_size=step.batch_sizes[-1],
        training=step.training,
        until=until,
        data=step.target.data,
        shapes=step.target.shapes,
    )
    for decision in overruled:
        tuner.store.put(tuner.environment, decision)
    return check
