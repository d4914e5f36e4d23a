"""Summary of the plans that a model's layers run, and where they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import keras
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from keras_diagwise._terminal import as_text, counted, printable
from keras_diagwise.decision import Decision
from keras_diagwise.environment import Environment
from keras_diagwise.layers.base import Diagonalwise
from keras_diagwise.models.arguments import check_model, standardize_batch_size
from keras_diagwise.models.calls import shapes_called
from keras_diagwise.models.environment import environment_of
from keras_diagwise.models.problems import Use, uses_in
from keras_diagwise.models.survey import (
    Skipped,
    abridged,
    own_compiled,
    skipped_lines,
    survey,
)
from keras_diagwise.ops import dispatcher
from keras_diagwise.plan import NATIVE, Plan
from keras_diagwise.planning.dispatch import why_not_served
from keras_diagwise.planning.planned_convolution import PlannedConvolution
from keras_diagwise.planning.source import PlanSource
from keras_diagwise.problem import Problem


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """The plan of a layer for one input shape.

    Attributes:
        path: names of the enclosing layers and its own, joined by slashes.
        layer: name of the layer's class.
        problem: its problem, for the batch size asked for; `None` if unknown.
        plan: the plan that a step of the model, compiled as it is, would run if it
            were traced now; `None` if unknown.
        rung: source of the plan: `"layer"`, `"decision"`, …, see
            `keras_diagwise.planning.source.PlanSource`.
        gain: speedup over native of the three passes together, or `None` where they
            were not measured for this very problem here.
        decision: the measurements, if the plan comes from any.
        role: the layer's attribute with its plan, `"plan"` or, of the pointwise
            convolution in a separable layer, `"pointwise_plan"`.
        environment: where it was measured.
    """

    path: str
    layer: str
    problem: Problem | None
    plan: Plan | None
    rung: PlanSource
    gain: float | None
    decision: Decision | None = None
    role: str = "plan"
    environment: Environment | None = None


class Summary(list[LayerPlan]):
    """Plans of a model's layers, one entry per package layer and input shape.

    Printed, it is a table.

    Attributes:
        model: the model's name.
        skipped: layers that are left alone, with the reasons.
        compiled: functions that the user compiled: each keeps the plans that it was
            traced with until it is compiled again.
    """

    def __init__(
        self,
        model: str,
        plans: Iterable[LayerPlan],
        skipped: tuple[Skipped, ...],
        compiled: tuple[str, ...] = (),
    ):
        super().__init__(plans)
        self.model = model
        self.skipped = skipped
        self.compiled = compiled
        self._is_detailed = False

    def detailed(self) -> Summary:
        """A copy that prints a line for each layer."""
        found = Summary(self.model, self, self.skipped, self.compiled)
        found._is_detailed = True
        return found

    def __str__(self) -> str:
        return as_text(self)

    def __repr__(self) -> str:  # a prompt shows the table
        return as_text(self).rstrip()

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        layers = counted(len({line.path for line in self}), "layer")
        yield Text(printable(f"keras_diagwise: {layers} of {self.model!r} run by plan"))
        if self:
            yield table_of(self, self._is_detailed)
        for device in other_devices(self):
            said = f"Rung {PlanSource.OTHER_DEVICE!r}: measured on {device}."
            yield Text(printable(said), overflow="fold")
        for line in skipped_lines(self.skipped):
            yield Text(printable(line), overflow="fold")
        if self.compiled:
            names = ", ".join(self.compiled)
            said = f"You compiled {names}: each keeps the plans it was traced with."
            yield Text(printable(said), overflow="fold")


def table_of(plans: Iterable[LayerPlan], is_detailed: bool) -> Table:
    """A row for each group of layers alike in class, plan, source and gain, or for each
    layer."""
    rows: dict[tuple, list[str]] = {}
    for i, line in enumerate(plans):
        stock = line.layer.removeprefix("Diagonalwise")
        plan, gain = str(line.plan or "-"), times(line.gain)
        part = ", pointwise" if line.role == "pointwise_plan" else ""
        cells = (f"{stock} → {line.layer}{part}", plan, line.rung, gain)
        rows.setdefault((*cells, i if is_detailed else None), []).append(line.path)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layers", overflow="fold")
    table.add_column("class", overflow="fold")
    for heading in ("plan", "rung", "gain"):
        table.add_column(heading)
    for kind, paths in rows.items():
        paths = list(dict.fromkeys(paths))
        label = paths[0] if len(paths) == 1 else f"{len(paths)}: {abridged(paths)}"
        table.add_row(*(Text(printable(each)) for each in (label, *kind[:-1])))
    return table


def other_devices(plans: Iterable[LayerPlan]) -> list[str]:
    """Other devices whose decisions serve, each once."""
    found = (
        line.environment.device
        for line in plans
        if line.rung == PlanSource.OTHER_DEVICE and line.environment
    )
    return list(dict.fromkeys(found))


def times(gain: float | None) -> str:
    """A gain, as text."""
    return "-" if gain is None else f"{gain:.1f}×"


def summary(
    model: keras.Model, *, batch_size: int | None = None, data: Any = None
) -> Summary:
    """Summarizes the plans of a model's layers, and the layers that were left alone.

    Args:
        model: a converted model.
        batch_size: the batch of a step; `None` is unknown, or that of `data`.
        data: a batch as `train_on_batch` takes it, on which a model that is not a
            graph of layers is called. Without it a layer of such a model is assumed to
            be called on its build shapes.

    Returns:
        A list with one `LayerPlan` for each of the package's layers and each of its
        input shapes, in the model's order. Its `skipped` are the layers that were left
        alone, with the reasons. Printed, it is a table.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if `batch_size` is not a positive int.
    """
    check_model(model)
    batch_size = standardize_batch_size(batch_size)
    environment = environment_of(model)
    shapes = None if data is None else shapes_called(model, data)
    plans = [
        layer_plan(use, environment)
        for use in uses_in(model, batch_size, shapes)
        if isinstance(use.layer, Diagonalwise)
    ]
    skipped = survey(model, lambda path, layer: isinstance(layer, Diagonalwise)).skipped
    return Summary(model.name, plans, skipped, own_compiled(model))


def layer_plan(use: Use, environment: Environment) -> LayerPlan:
    """The plan of a layer in an environment."""
    path, name, problem = use.path, type(use.layer).__qualname__, use.problem
    if problem is None:
        return LayerPlan(path, name, None, None, PlanSource.NOT_CALLED, None)
    answer = dispatcher.answer(problem, getattr(use.layer, use.role), environment)
    plan = NATIVE
    if why_not_served(environment) is None:
        plan = PlannedConvolution(problem, answer.plan).effective_plan
    measured = answer.decision if answer.source == PlanSource.DECISION else None
    gain = measured.gain(plan) if measured else None
    return LayerPlan(
        path,
        name,
        problem,
        plan,
        answer.source,
        gain,
        answer.decision,
        use.role,
        answer.environment,
    )
