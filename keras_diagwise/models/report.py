"""The tuning report, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from keras_diagwise._terminal import as_text, counted, printable, printable_lines
from keras_diagwise.decision import MISHAPS, Comparison, Number, Seconds
from keras_diagwise.durations import duration, milliseconds
from keras_diagwise.environment import Environment
from keras_diagwise.problem import PASS_NAMES, Problem
from keras_diagwise.records import Record

WIDE = 100
"""Terminal columns from which problems stand beside their figures, with rooflines."""

NARROW = 70
"""Terminal columns below which the share of the roofline is left out."""

MAX_NAMED = 5
"""Limit of the failed candidates named."""

LABELS = "problem and layers"
"""Heading of the column that folds."""

NO_LAYERS = "no layer was found that a plan can run."

ENDINGS = {"budget": "The budget is spent.", "interrupted": "Interrupted."}


@dataclasses.dataclass(frozen=True)
class Row:
    """One pass of one problem.

    Attributes:
        layers: paths of the layers that pose the problem; none for a bare problem.
        problem: the problem.
        pass_name: the pass.
        winner: the algorithm that serves.
        comparison: the measurements.
    """

    layers: tuple[str, ...]
    problem: Problem
    pass_name: str
    winner: str
    comparison: Comparison

    @property
    def seconds(self) -> float | None:
        """The winner's time."""
        return self.comparison.seconds.get(self.winner)

    @property
    def native_seconds(self) -> float | None:
        """Native's time, if it was timed."""
        return self.comparison.seconds.get("native")

    @property
    def times(self) -> int:
        """How many times a step runs it."""
        return max(1, len(self.layers))

    @property
    def failures(self) -> dict[str, tuple[str, str]]:
        """Type and reason of failure, by failed candidate."""
        return {
            name: (outcome.failure, outcome.reason)
            for name, outcome in self.comparison.outcomes.items()
            if outcome.failure is not None
        }

    def to_dict(self) -> dict:
        """The row in JSON's types."""
        return {
            "layers": list(self.layers),
            "problem": self.problem.to_dict(),
            "pass": self.pass_name,
            "winner": self.winner,
            "seconds": self.seconds,
            "native_seconds": self.native_seconds,
            **self.comparison.to_dict(),
        }


class ModelCheck(Record, frozen=True, omit_defaults=False):
    """The whole model's step, stock against converted, interleaved.

    Attributes:
        stock_seconds: median time of the stock model's step.
        converted_seconds: median time of the converted model's step.
        speedup: stock's median over the converted model's.
        overruled: passes of problems, as text, sent back to native because the model
            lost with them.
        skipped: why there was no check, or `None`.
    """

    RULE = "A check must have the times of both models and the speedup"

    stock_seconds: Seconds | None = None
    converted_seconds: Seconds | None = None
    speedup: Number | None = None
    overruled: tuple[str, ...] = ()
    skipped: str | None = None

    def to_dict(self) -> dict:
        """The check in JSON's types; `from_dict` is the way back."""
        return {**super().to_dict(), "overruled": list(self.overruled)}

    def check(self) -> None:
        numbers = (self.stock_seconds, self.converted_seconds, self.speedup)
        if None in numbers or self.skipped is not None:
            raise ValueError(f"{self.RULE}. Received: {self.to_dict()}")


@dataclasses.dataclass(frozen=True)
class TuningReport:
    """Results of `tune`.

    Attributes:
        environment: where it was measured.
        rows: one for each decided pass of each problem.
        undecided: passes of problems not decided yet, as text.
        skipped: layers that were passed over, with the reason.
        measured: number of passes measured by this call; the others were known.
        seconds: duration of the call.
        ended: `None` if everything is done, else `"budget"` or `"interrupted"`.
        model: the whole-model check, if there was one.
    """

    environment: Environment
    rows: tuple[Row, ...]
    undecided: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    measured: int = 0
    seconds: float = 0.0
    ended: str | None = None
    model: ModelCheck | None = None

    @property
    def totals(self) -> dict[str, dict[str, float]]:
        """Per pass, sums of the winners' times, native's times and the rooflines.

        Summed over all layers, or over all problems if none has layers; rows
        without both timings are left out.
        """
        of_a_model = any(row.layers for row in self.rows)
        totals: dict[str, dict[str, float]] = {}
        for row in self.rows:
            if row.seconds is None or row.native_seconds is None:
                continue
            if of_a_model and not row.layers:  # queued by a trace
                continue
            sums = totals.setdefault(
                row.pass_name, {"seconds": 0.0, "native_seconds": 0.0, "least": 0.0}
            )
            sums["seconds"] += row.times * row.seconds
            sums["native_seconds"] += row.times * row.native_seconds
            sums["least"] += row.times * (row.comparison.roofline or 0.0)
        return totals

    @property
    def failures(self) -> dict[str, int]:
        """Number of candidates without a timing, by type of failure."""
        counts: dict[str, int] = {}
        for row in self.rows:
            for failure, _ in row.failures.values():
                counts[failure] = counts.get(failure, 0) + 1
        return counts

    def to_dict(self) -> dict:
        """The report in JSON's types, times in seconds.

        `rows` have `layers`, `problem`, `pass`, `winner`, `seconds`,
        `native_seconds`, `least`, `measured` and, by candidate, `outcomes`, each with
        `seconds`, `gain` and `error`, or `failure` and `reason`. Beside them are
        `environment`, `totals` by pass, `undecided`, `skipped`, `measured`, `seconds`,
        `ended` and `model`.
        """
        return {
            "environment": self.environment.to_dict(),
            "rows": [row.to_dict() for row in self.rows],
            "totals": self.totals,
            "undecided": list(self.undecided),
            "skipped": dict(self.skipped),
            "measured": self.measured,
            "seconds": self.seconds,
            "ended": self.ended,
            "model": self.model and self.model.to_dict(),
        }

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(self.to_dict(), indent=1)

    def __str__(self) -> str:
        return as_text(self)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        if self.rows:
            yield from tables_of(self, options.max_width)
        for line in closing_lines(self, options.max_width):
            yield Text(printable(" ".join(line.split())), overflow="fold")


def tables_of(report: TuningReport, width: int) -> Iterator[RenderableType]:
    """A row for each pass of each problem, beside the layers that pose it, or below
    them on a narrow terminal."""
    sections = list(sections_of(report, width))
    if width >= WIDE:
        yield joined(sections, width)
        return
    columns = zip(*(row for each in sections for row in each.rows), strict=True)
    heads = columns_of(width)
    widths = [
        max(map(cell_len, (head, *cells)))
        for head, cells in zip(heads, columns, strict=True)
    ]
    for i, section in enumerate(sections):
        for label in filter(None, section.labels):
            yield Text(printable_lines(label), "bold", overflow="fold")
        table = pass_table(heads, widths, show_header=not i)
        for row in section.rows:
            table.add_row(*cells_of(row), style=section.style)
        yield table


@dataclasses.dataclass(frozen=True)
class Section:
    """The rows of one problem, or the totals.

    Attributes:
        labels: the problem and its layers.
        rows: the cells of each pass.
        style: rich style of the rows.
    """

    labels: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    style: str = ""


def sections_of(report: TuningReport, width: int) -> Iterator[Section]:
    """A section for each problem, and one for the totals."""
    for problem, group in itertools.groupby(report.rows, lambda row: row.problem):
        rows = list(group)
        yield Section(
            (str(problem), ", ".join(rows[0].layers)),
            tuple(
                (
                    PASS_NAMES[row.pass_name],
                    row.winner,
                    *figures(
                        row.seconds, row.native_seconds, row.comparison.roofline, width
                    ),
                )
                for row in rows
            ),
        )
    sums = tuple(
        (
            PASS_NAMES[name],
            "",
            *figures(each["seconds"], each["native_seconds"], each["least"], width),
        )
        for name, each in report.totals.items()
    )
    if sums:
        yield Section(("all layers",), sums, "bold")


def joined(sections: Iterable[Section], width: int) -> Table:
    """The sections in one table, each with its labels in the first column."""
    table = pass_table((LABELS, *columns_of(width)))
    for section in sections:
        labels = list(section.labels)
        if len(section.rows) < len(labels):
            labels = ["\n".join(filter(None, labels))]
        for row, label in itertools.zip_longest(section.rows, labels, fillvalue=""):
            table.add_row(*cells_of((label, *row)), style=section.style)
    return table


def columns_of(width: int) -> tuple[str, ...]:
    """Headings of the columns of figures."""
    return (
        *("pass", "winner", "ms", "native", "gain"),
        *if_wide(width, "least"),
        *if_wide(width, "near", NARROW),
    )


def pass_table(
    heads: Sequence[str],
    widths: Sequence[int | None] | None = None,
    show_header: bool = True,
) -> Table:
    """A table without lines, numbers right-aligned."""
    table = Table(
        box=None, pad_edge=False, header_style="bold", show_header=show_header
    )
    for head, width in zip(heads, widths or [None] * len(heads), strict=True):
        is_text = head in (LABELS, "pass", "winner")
        table.add_column(
            head,
            justify="left" if is_text else "right",
            no_wrap=head != LABELS,
            overflow="fold",
            width=width,
        )
    return table


def if_wide(width: int, text: str, columns: int = WIDE) -> tuple[str, ...]:
    """A cell, if there is room for its column."""
    return (text,) if width >= columns else ()


def figures(
    seconds: float | None, native: float | None, roofline: float | None, width: int
) -> tuple[str, ...]:
    """Cells for the times of a pass, or for their sums."""
    return (
        milliseconds(seconds),
        milliseconds(native),
        times(native, seconds),
        *if_wide(width, milliseconds(roofline)),
        *if_wide(width, share(roofline, seconds), NARROW),
    )


def cells_of(texts: Iterable[str]) -> Iterator[Text]:
    """Texts as literal cells, without markup."""
    return (Text(printable_lines(each)) for each in texts)


def closing_lines(report: TuningReport, width: int) -> Iterator[str]:
    """Lines below the table."""
    if report.rows:
        yield ""
        near = "near: the roofline over the winner's time, at most 100%"
        yield from if_wide(width, near, NARROW)
    elif not report.undecided:
        found = "none of its layers can be." if report.skipped else NO_LAYERS
        yield f"There was nothing to measure: {found}"
    yield from failure_lines(report)
    for path, reason in report.skipped:
        yield f"Skipped {path}: {reason}."
    if report.model:
        yield from check_lines(report.model)
    if report.ended:
        yield ENDINGS[report.ended]
    if report.undecided:
        count = counted(len(report.undecided), "pass", "passes")
        yield f"Not decided yet: {count}. Run `tune` again to continue."
    measured = counted(report.measured, "pass", "passes")
    known = max(len(report.rows) - report.measured, 0)
    yield f"{measured} measured, {known} known before, in {duration(report.seconds)}."


def failure_lines(report: TuningReport) -> Iterator[str]:
    """Candidates without a timing, and passes that went back to native.

    Only mishaps are named one by one; the rest the tuner chose not to time.
    """
    if report.failures:
        counts = (f"{count} {failure}" for failure, count in report.failures.items())
        why = "keras-diagwise decisions show PROBLEM"
        yield f"Not timed: {', '.join(counts)}. For the reasons: {why}"
    failed = [
        f"{name} failed in the {PASS_NAMES[row.pass_name]} of {row.problem}: "
        f"{failure}{f': {reason}' if reason else ''}"
        for row in report.rows
        for name, (failure, reason) in row.failures.items()
        if failure in MISHAPS or name == "native"
    ]
    yield from failed[:MAX_NAMED]
    if len(failed) > MAX_NAMED:
        yield f"… and {len(failed) - MAX_NAMED} more"
    for row in report.rows:
        if row.comparison.overruled:
            yield (
                f"Back to native in the {PASS_NAMES[row.pass_name]} of {row.problem}: "
                f"{row.comparison.overruled}"
            )


def check_lines(check: ModelCheck) -> Iterator[str]:
    """Lines on the whole-model check."""
    if check.skipped:
        yield f"The whole model was not timed: {check.skipped}."
    if check.stock_seconds is not None and check.converted_seconds is not None:
        yield (
            f"The whole model's step: {duration(check.stock_seconds)} stock, "
            f"{duration(check.converted_seconds)} converted: {check.speedup:.2f}×."
        )


def times(slower: float | None, faster: float | None) -> str:
    """Ratio of two times, as text."""
    if not slower or not faster:
        return "-"
    return f"{slower / faster:.1f}×"


def share(roofline: float | None, seconds: float | None) -> str:
    """The roofline's share of a time, as text."""
    if not roofline or not seconds:
        return "-"
    return f"{min(1.0, roofline / seconds):.0%}"
