"""Tables of decisions, and their figures in JSON's types."""

from __future__ import annotations

from collections.abc import Iterable

import rich.console
from rich.table import Column, Table
from rich.text import Text

from keras_diagwise.decision import Comparison, Decision, Outcome
from keras_diagwise.durations import duration
from keras_diagwise.environment import Environment
from keras_diagwise.ops import dispatcher
from keras_diagwise.problem import PASSES
from keras_diagwise.storage.document import Document
from keras_diagwise_cli.terminal.console import console, printable
from keras_diagwise_cli.terminal.tables import numbers, plain_table, ratio, texts

WIDE = 110
"""Terminal columns from which a problem and its plan stand side by side."""

SHORT_DIGEST = 8


def figures(document: Document) -> list[dict]:
    """All decisions in JSON's types."""
    return [
        {
            "environment": environment.to_dict(),
            "digest": environment.digest,
            "decisions": [decision_figures(each) for each in sorted_decisions(some)],
        }
        for environment, some in by_environment(document)
    ]


def decision_figures(decision: Decision) -> dict:
    plan = dispatcher.plan_of(decision)
    return {
        "digest": decision.problem.digest,
        "problem": decision.problem.to_dict(),
        "text": str(decision.problem),
        "plan": plan.to_config(),
        "gain": decision.gain(plan),
        "measured": measured(decision),
    }


def show_all(document: Document, where: str) -> None:
    """Prints a table for each environment."""
    terminal = console()
    if not len(document):
        terminal.print(
            f"No decisions in {where}. To measure some: keras-diagwise tune",
            markup=False,
            soft_wrap=True,
        )
    for environment, decisions in by_environment(document):
        table = decisions_table(decisions, terminal.width >= WIDE)
        terminal.print(heading(environment))
        terminal.print(table, "", sep="\n")


def decisions_table(decisions: Iterable[Decision], wide: bool) -> Table:
    names = ("problem", "plan") if wide else ("problem\nplan",)
    table = plain_table(
        Column("digest", no_wrap=True, style="dim"),
        *map(texts, names),
        numbers("gain"),
        Column("measured", no_wrap=True),
    )
    for decision in sorted_decisions(decisions):
        values = decision_figures(decision)
        plan = Text(str(dispatcher.plan_of(decision)), style="bold")
        problem = Text(values["text"])
        table.add_row(
            values["digest"][:SHORT_DIGEST],
            *((problem, plan) if wide else (Text("\n").join((problem, plan)),)),
            ratio(values["gain"]),
            printable(values["measured"])[:10],
        )
    return table


def matching(document: Document, sought: str) -> Document:
    """Decisions of problems whose digest begins with `sought` or whose text has it."""
    text = simplified(sought)
    return Document(
        {
            environment: found
            for environment, decisions in document.entries.items()
            if (
                found := {
                    problem: decision
                    for problem, decision in decisions.items()
                    if problem.digest.startswith(sought)
                    or text in simplified(str(problem))
                }
            )
        }
    )


def simplified(text: str) -> str:
    """A text in lower case, with `x` for × and single spaces."""
    return " ".join(text.casefold().replace("×", "x").split())


def show_candidates(document: Document) -> None:
    """Prints a table for each pass of each decision."""
    terminal = console()
    for environment, decisions in by_environment(document):
        terminal.print(heading(environment))
        for decision in sorted_decisions(decisions):
            digest = decision.problem.digest[:SHORT_DIGEST]
            terminal.print(Text.assemble((digest, "dim"), f"  {decision.problem}"), "")
            for name in PASSES:
                if name in decision.passes:
                    show_pass(terminal, name, decision)


def show_pass(terminal: rich.console.Console, name: str, decision: Decision) -> None:
    comparison = decision.passes[name]
    winner = getattr(dispatcher.plan_of(decision), name)
    title = Text.assemble(
        (name, "bold"), f": {winner}, measured {printable(comparison.measured)}"
    )
    terminal.print(title)
    if comparison.overruled:
        terminal.print(Text(f"overruled: {printable(comparison.overruled)}", "yellow"))
    terminal.print(candidates_table(comparison, winner), "", sep="\n")


def candidates_table(comparison: Comparison, winner: str) -> Table:
    table = plain_table(
        texts("candidate"),
        *map(numbers, ("time", "gain", "at least", "error")),
        texts("why not timed"),
    )
    native = comparison.seconds.get("native")
    for name, outcome in sorted(comparison.outcomes.items(), key=fastest_first):
        table.add_row(
            Text(printable(name), style="bold green" if name == winner else ""),
            "" if outcome.seconds is None else duration(outcome.seconds),
            ratio(native and outcome.seconds and native / outcome.seconds),
            ratio(outcome.gain),
            "" if outcome.error is None else f"{outcome.error:.1e}",
            Text(why(outcome)),
        )
    return table


def fastest_first(candidate: tuple[str, Outcome]) -> tuple:
    """Sort key of candidates: by time, then those without one."""
    name, outcome = candidate
    timed = outcome.seconds is not None
    return not timed, outcome.seconds if timed else outcome.failure, name


def why(outcome: Outcome) -> str:
    """Reason why a candidate has no time."""
    return printable(": ".join(filter(None, (outcome.failure, outcome.reason))))


def heading(environment: Environment) -> Text:
    return Text(printable(str(environment)), style="bold")


def by_environment(document: Document) -> list[tuple[Environment, list[Decision]]]:
    """Environments that have decisions, with these."""
    return [
        (each, list(document.entries[each].values()))
        for each in document.environments()
        if document.entries[each]
    ]


def sorted_decisions(decisions: Iterable[Decision]) -> list[Decision]:
    """Decisions sorted by the dimensions of their problems."""

    def order(decision):
        problem = decision.problem
        pixels = [-(n or 0) for n in problem.spatial_shape]
        return problem.rank, pixels, problem.channels, problem.batch or 0, str(problem)

    return sorted(decisions, key=order)


def measured(decision: Decision) -> str:
    """Time at which the last of the passes was measured."""
    return max((each.measured for each in decision.passes.values()), default="")
