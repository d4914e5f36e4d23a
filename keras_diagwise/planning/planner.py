"""The planner: problem → plan, from the first source that has one.

The fastest candidate of a decision is `decision.Comparison.winner`; what a call does on
a miss is `dispatch.Dispatcher.answer_to_call`.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Protocol

from keras_diagwise._terminal import short
from keras_diagwise.algorithms import Diagonal, Direct, Native
from keras_diagwise.algorithms.diagonal import PAPER_PARTITION_SIZE
from keras_diagwise.decision import Decision
from keras_diagwise.environment import Environment
from keras_diagwise.plan import NATIVE, Plan
from keras_diagwise.planning.source import PlanSource
from keras_diagwise.precision import STANDARD
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.similarity import distance, logarithms
from keras_diagwise.storage.document import Document

SHIPPED = Path(__file__).with_name("shipped")

MARGIN_MEASURED = 1.03
MARGIN_OTHER_VERSIONS = 1.2
MARGIN_NEAREST = 1.25
MARGIN_OTHER_DEVICE = 2.0
"""Required speedup of a candidate over native: the further the source, the larger."""

MARGIN_NEAREST_DENSE = 1.5
"""`MARGIN_NEAREST` for dense problems of several taps, whose gain depends on the
caches: at 1.25 a kernel gradient took up to twice native's time
(tuning.leave_one_out)."""

FARTHER_ABOVE = 2**0.5
FARTHER_BELOW = 1.1
"""Growth of the nearest problem's margin per doubling of images, pixels or channels:
large where a larger problem serves a smaller one, since the overhead of a call shrinks
the gain (at 1.2 throughout, torch's `direct` lost 9 % on a small problem served by a
larger one with a gain of 2); small where a smaller problem serves a larger one."""

MAX_LETTERS = 500

logger = logging.getLogger("keras_diagwise")


class DecisionLookup(Protocol):
    """Where decisions are looked up: a store, or a document."""

    def get(self, environment: Environment, problem: Problem) -> Decision | None:
        """The decision for exactly this problem in exactly this environment."""

    def nearest(self, environment: Environment, problem: Problem) -> Decision | None:
        """The decision for the nearest other problem of the same bucket."""

    def environments(self) -> list[Environment]:
        """The environments in which anything was measured."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """A plan, and its source.

    Attributes:
        plan: the plan.
        source: where it comes from.
        decision: the measurements behind it, if any.
        environment: where they were made.
    """

    plan: Plan
    source: PlanSource
    decision: Decision | None = None
    environment: Environment | None = None


class Planner:
    """Plans a problem by the first decision found in this order, each in the user's
    store before the shipped ones:

    1. for exactly this problem and environment (`PlanSource.DECISION`);
    2. for exactly this problem on this device, under other versions of the backend, its
       libraries or the package's algorithms (`OTHER_VERSIONS`);
    3. for the nearest problem measured in this environment (`NEAREST`);
    4. for this or the nearest problem, shipped for another device of the same kind, the
       most similar first (`OTHER_DEVICE`);
    5. none: native or its fallback, see `fallback_plan` (`NATIVE`).

    Args:
        store: the decisions measured here.
        shipped: the decisions that come with the package; read on first use if not
            given.
    """

    def __init__(self, store: DecisionLookup, shipped: Document | None = None):
        self.store = store
        self._shipped = shipped
        self._hinted: set[Hashable] = set()
        self._lock = threading.Lock()

    @property
    def shipped(self) -> Document:
        """The decisions that come with the package."""
        return shipped_document() if self._shipped is None else self._shipped

    @shipped.setter
    def shipped(self, shipped: Document) -> None:
        self._shipped = shipped

    def plan(
        self, problem: Problem, environment: Environment, precision: str = STANDARD
    ) -> Answer:
        """The plan of `problem` in `environment`.

        A pass that the first decision lacks is taken from the next one; the source is
        the first's.

        Args:
            problem: the problem.
            environment: where it runs.
            precision: the required precision, one of `PRECISIONS`.
        """
        first = None
        decided: dict[str, str] = {}
        for source, margin, decision, measured_in in self._found(problem, environment):
            self._hint_if_outdated(decision)
            first = first or (source, decision, measured_in)
            plan = decision.plan(margin, problem, precision)
            for name in decision.passes:
                decided.setdefault(name, str(plan[name]))
            if len(decided) == len(PASSES):
                break
        if first is None:
            return Answer(fallback_plan(problem, environment), PlanSource.NATIVE)
        return Answer(Plan(**decided), *first)

    def _found(
        self, problem: Problem, environment: Environment
    ) -> Iterator[tuple[PlanSource, float, Decision, Environment]]:
        """The decisions that can serve, each with its source, the margin required of it
        and the environment where it was measured."""
        if not problem.has_static_spatial_shape:
            return
        for known in self._lookups(environment):
            decision = known.get(environment, problem)
            if decision:
                yield PlanSource.DECISION, MARGIN_MEASURED, decision, environment
        for known in self._lookups(environment):
            for other in known.environments():
                if other != environment and environment.is_same_place(other):
                    decision = known.get(other, problem)
                    if decision:
                        self._hint(other, environment)
                        source = PlanSource.OTHER_VERSIONS
                        yield source, MARGIN_OTHER_VERSIONS, decision, other
        for known in self._lookups(environment):
            decision = known.nearest(environment, problem)
            if decision:
                margin = margin_of(decision.problem, problem)
                yield PlanSource.NEAREST, margin, decision, environment
        shipped = self._shipped_for(environment)
        for other in others_of_kind(shipped, environment):
            decision = shipped.get(other, problem) or shipped.nearest(other, problem)
            if decision:
                yield PlanSource.OTHER_DEVICE, MARGIN_OTHER_DEVICE, decision, other

    def _lookups(self, environment: Environment) -> Iterator[DecisionLookup]:
        """The store, then the shipped decisions, which are read only if needed."""
        yield self.store
        yield self._shipped_for(environment)

    def _shipped_for(self, environment: Environment) -> Document:
        if self._shipped is not None:
            return self._shipped
        return shipped_for(environment.backend, environment.compiler_mode)

    def _hint_if_outdated(self, decision: Decision) -> None:
        """Warns once if an earlier error bound rejected candidates of a decision."""
        is_outdated = any(each.is_outdated for each in decision.passes.values())
        if is_outdated and self._is_first("outdated"):
            logger.warning(
                "keras_diagwise: the measurements of %s rejected a candidate under an "
                "earlier error bound, which was too strict. Call "
                "keras_diagwise.tune(model, …) to repeat them.",
                decision.problem,
            )

    def _is_first(self, hint: Hashable) -> bool:
        """Whether a hint was not given before; marks it as given."""
        with self._lock:
            is_first = hint not in self._hinted
            self._hinted.add(hint)
        return is_first

    def _hint(self, other: Environment, environment: Environment) -> None:
        """Warns once that decisions come from other versions."""
        if self._is_first(other):
            logger.warning(
                "keras_diagwise: on %s, decisions measured under other versions are "
                "used: %s. Call keras_diagwise.tune(model, …) to measure again.",
                environment,
                short("; ".join(environment.changes_since(other)), MAX_LETTERS),
            )


def others_of_kind(known: DecisionLookup, here: Environment) -> list[Environment]:
    """The other environments of the same kind, the most similar first."""
    others = [e for e in known.environments() if e != here and here.is_same_kind(e)]
    return sorted(others, key=here.distance)


def margin_of(known: Problem, requested: Problem) -> float:
    """The margin required of the decision for `known` to plan another problem."""
    if requested.batch is None:
        requested = dataclasses.replace(requested, batch=known.batch)
    if known == requested:
        return MARGIN_MEASURED
    sizes, wanted = logarithms(known), logarithms(requested)
    farther = FARTHER_ABOVE if sum(sizes) > sum(wanted) else FARTHER_BELOW
    has_taps = requested.is_dense and requested.taps > 1
    margin = MARGIN_NEAREST_DENSE if has_taps else MARGIN_NEAREST
    return margin * farther ** distance(sizes, wanted)


@functools.cache
def shipped_document() -> Document:
    """The decisions that come with the package."""
    return read_shipped("*")


@functools.cache
def shipped_for(backend: str, compiler_mode: str) -> Document:
    """The shipped decisions for a backend and compiler mode: no others can serve there.
    They are chosen by file name, since reading them is the slowest part of a miss."""
    return read_shipped(f"*-{backend}-{compiler_mode}")


def read_shipped(names: str) -> Document:
    documents = (Document.read(path) for path in sorted(SHIPPED.glob(f"{names}.json")))
    return functools.reduce(Document.__or__, documents, Document())


def fallback_plan(problem: Problem, environment: Environment) -> Plan:
    """The plan of a problem without a decision: `native`, or `direct` where only that
    can compute it, or blocks of dense convolutions where Keras compiles native
    separately, see `is_wrapped`."""
    if is_wrapped(problem, environment) and Diagonal().refusal(problem) is None:
        return blocks_of_dense(problem)
    if Native().refusal(problem) is None or Direct().refusal(problem) is not None:
        return NATIVE
    return Plan("direct", "direct", "direct")


def is_wrapped(problem: Problem, environment: Environment) -> bool:
    """Whether Keras compiles native by XLA within code that is not: a grouped
    convolution on TensorFlow. Its three passes took 897 ms for 32 groups of 4 channels,
    3×3, on 8×14×14, and 4.5 ms by blocks of 32 channels (on a CPU of two cores, Keras
    3.15.1, TensorFlow 2.21)."""
    is_compiled = environment.compiler_mode not in ("eager", "graph")
    if environment.backend != "tensorflow" or is_compiled:
        return False
    return problem.groups > 1 and not (problem.is_depthwise and problem.rank < 3)


def blocks_of_dense(problem: Problem) -> Plan:
    """The plan of dense blocks, of about the paper's number of channels each."""
    most = max(1, PAPER_PARTITION_SIZE // problem.channels_per_group)
    size = problem.channels_per_group * min(most, problem.groups)
    name = str(Diagonal(size, "split"))
    return Plan(name, name, name)
