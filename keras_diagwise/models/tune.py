"""Measures the candidates for a model's layers and keeps the decisions."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import rich.console
import rich.progress

from keras_diagwise._terminal import TimeLeftColumn, standard_console
from keras_diagwise.budget import standardize_budget
from keras_diagwise.decision import Decision
from keras_diagwise.environment import Environment
from keras_diagwise.models.arguments import standardize_batch_sizes
from keras_diagwise.models.example import batch_size_of_data
from keras_diagwise.models.report import Row, TuningReport
from keras_diagwise.models.shared_check import (
    Step,
    whole_model_check,
    whole_model_check_when_free,
)
from keras_diagwise.models.swap import forget_compiled
from keras_diagwise.models.target import Target, standardize_target, with_queued
from keras_diagwise.ops import dispatcher
from keras_diagwise.problem import PASS_NAMES, PASSES, Problem
from keras_diagwise.storage.locations import shown
from keras_diagwise.storage.store import Store
from keras_diagwise.tuner.candidates import is_decided
from keras_diagwise.tuner.runner import BudgetSpentError
from keras_diagwise.tuner.tuner import Tuner


def tune(
    model_or_problems: keras.Model | str | Path | Iterable[Problem],
    *,
    batch_size: int | Sequence[int] | None = None,
    data: Any = None,
    training: bool = True,
    budget: float | str | None = None,
    keep: bool = True,
    verbose: int = 1,
) -> TuningReport:
    """Measures the candidates for a model's layers on this device, verifies them, and
    keeps the decisions, which `"auto"` layers follow from the next step on.

    Known decisions are not measured again; problems that `decisions.on_miss = "tune"`
    queued inside a trace are measured too. An interrupted call keeps every decision
    that it made. The model is left unchanged, but traces its steps again.

    Args:
        model_or_problems: a model, stock or converted; a `.keras` file; the name of
            a model of `keras.applications`; or problems.
        batch_size: images in a step, or several sizes to tune for. Optional for
            problems, which hold their own, and where `data` has a batch axis.
        data: a batch as `train_on_batch` takes it: inputs, or a tuple of inputs,
            targets and sample weights. With it the model is called once to record the
            input shapes of layers outside any graph of layers, and the whole-model
            check trains on it with the model's own loss and optimizer.
        training: `True` decides all three passes, `False` the forward pass.
        budget: time limit in seconds, or as text such as `"30s"` or `"5m"`; `None`
            is no limit.
        keep: `False` accepts a store that can't be written; decisions then last for
            this process.
        verbose: 1 shows a progress bar on a terminal and prints the report, 0
            neither.

    Returns:
        The report. After Ctrl-C it is printed, and `KeyboardInterrupt` raised.

    Raises:
        TypeError: if `model_or_problems` is none of these.
        ValueError: if `batch_size`, `data` or `budget` are not valid, or a problem
            can't be measured.
        OSError: if the store can't be written, unless `keep=False`.

    Example:

    >>> report = keras_diagwise.tune(model, batch_size=32, budget="5m")
    """
    report = measure(
        model_or_problems,
        batch_size=batch_size,
        data=data,
        training=training,
        budget=budget,
        keep=keep,
        has_bar=bool(verbose),
    )
    if verbose:
        standard_console().print(report)
    if report.ended == "interrupted":
        raise KeyboardInterrupt
    return report


def measure(
    model_or_problems: keras.Model | str | Path | Iterable[Problem],
    *,
    batch_size: int | Sequence[int] | None,
    data: Any = None,
    training: bool,
    budget: float | str | None,
    keep: bool = True,
    has_bar: bool,
) -> TuningReport:
    """`tune` without printing; returns a report after Ctrl-C too.

    Args:
        model_or_problems: as in `tune`, like the other arguments.
        batch_size: images in a step.
        data: a batch of the model.
        training: whether all passes are decided.
        budget: time limit.
        keep: whether a store that can't be written is an error.
        has_bar: whether a progress bar is shown on a terminal.
    """
    started = time.monotonic()
    seconds = standardize_budget(budget)
    until = started + (float("inf") if seconds is None else seconds)
    batch_sizes = standardize_batch_sizes(batch_size)
    if data is not None and not batch_sizes:
        batch_sizes = (batch_size_of_data(data),)
    target = with_queued(
        standardize_target(model_or_problems, batch_sizes, data), batch_sizes
    )
    passes = PASSES if training else PASSES[:1]
    if keep:
        check_kept(dispatcher.store, target.environment)
    dispatcher.store.sweep(target.environment)
    tuner = Tuner(dispatcher.store, target.environment, until=until)
    check, ended = None, None
    step = Step(target, batch_sizes, training)
    try:
        # Held to the end: later workers wait for the whole-model check.
        with tuner.leased(step.digest) as leads:
            decide(tuner, target.problems, passes, has_bar)
            if leads:
                check = whole_model_check(step, tuner, until)
        if not leads:
            check = whole_model_check_when_free(step, tuner, until)
    except BudgetSpentError:
        ended = "budget"
    except KeyboardInterrupt:
        ended = "interrupted"
    finally:
        tuner.close()
        dispatcher.forget()
        dispatcher.settle(tuner.environment, target.problems)
        if target.model is not None:
            forget_compiled(target.model)
    return TuningReport(
        environment=tuner.environment,
        **rows_of(target, tuner, passes),
        skipped=target.skipped,
        measured=tuner.measured,
        seconds=time.monotonic() - started,
        ended=ended,
        model=check,
    )


def check_kept(store: Store, environment: Environment) -> None:
    """Checks that measurements in an environment can be kept.

    Raises:
        OSError: if they would be lost with this process.
    """
    reason = store.why_not_kept(environment)
    if reason is not None:
        raise OSError(
            f"Measurements can't be kept in {shown(store.location)}: {reason}. Set "
            "keras_diagwise.decisions.location or KERAS_DIAGWISE_STORE to a folder "
            "that can be written, or pass `keep=False` (`--no-keep`) to keep them for "
            "this process only."
        )


def decide(
    tuner: Tuner, problems: Sequence[Problem], passes: Sequence[str], has_bar: bool
) -> dict[Problem, Decision]:
    """Decides problems, with a progress bar.

    Problems that no other worker measures come first, then the rest.
    """
    console = standard_console(stderr=True)
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(bar_width=12),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        TimeLeftColumn(),
    )
    decisions = {}
    shown = has_bar and (console.is_terminal or console.is_jupyter)
    with rich.progress.Progress(
        *columns,
        console=console,
        transient=True,
        disable=not shown,
    ) as bar:
        task = bar.add_task("", total=len(problems) * len(passes))
        for tune_one in (tuner.tune_unless_leased, tuner.tune):
            for problem in [each for each in problems if each not in decisions]:
                bar.update(task, description=f"{problem!s:.34}")
                decision = tune_one(
                    problem, passes, on_done=lambda pass_name: bar.advance(task)
                )
                if decision is not None:
                    decisions[problem] = decision
                    dispatcher.queue.remove(tuner.environment, problem)
    return decisions


def rows_of(target: Target, tuner: Tuner, passes: Sequence[str]) -> dict[str, tuple]:
    """The report's rows from the store, and what is still undecided."""
    rows, undecided = [], []
    for problem, layers in target.uses.items():
        decision = tuner.known(problem)
        plan = dispatcher.plan_of(decision)
        for pass_name in passes:
            if is_decided(decision, pass_name):
                comparison = decision.passes[pass_name]
                winner = str(plan[pass_name])
                rows.append(Row(layers, problem, pass_name, winner, comparison))
            else:
                undecided.append(f"{PASS_NAMES[pass_name]} of {problem}")
    return {"rows": tuple(rows), "undecided": tuple(undecided)}
