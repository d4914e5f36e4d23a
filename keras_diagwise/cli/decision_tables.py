"""Tables of `keras-diagwise decisions`."""

from __future__ import annotations

from collections.abc import Iterable

import rich.console
from rich.table import Table
from rich.text import Text

from keras_diagwise._terminal import printable, standard_console
from keras_diagwise.cli.demo_tables import plain_table
from keras_diagwise.decision import Comparison, Decision, Outcome
from keras_diagwise.environment import Environment
from keras_diagwise.ops import dispatcher
from keras_diagwise.problem import PASSES
from keras_diagwise.storage.document import Document

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
    console = standard_console(highlight=False)
    if not len(document):
        console.print(
            f"No decisions in {where}. Make some with: keras-diagwise tune",
            markup=False,
            soft_wrap=True,
        )
    for environment, decisions in by_environment(document):
        console.print(heading(environment))
        console.print(decisions_table(decisions, console.width >= WIDE), "", sep="\n")


def decisions_table(decisions: Iterable[Decision], wide: bool) -> Table:
    table = plain_table()
    table.add_column("digest", no_wrap=True, style="dim")
    table.add_column("problem" if wide else "problem\nplan", overflow="fold")
    if wide:
        table.add_column("plan", overflow="fold")
    table.add_column("gain", justify="right", no_wrap=True)
    table.add_column("measured", no_wrap=True)
    for decision in sorted_decisions(decisions):
        values = decision_figures(decision)
        plan = Text(str(dispatcher.plan_of(decision)), style="bold")
        problem = Text(values["text"])
        table.add_row(
            values["digest"][:SHORT_DIGEST],
            *((problem, plan) if wide else (Text("\n").join((problem, plan)),)),
            "" if values["gain"] is None else f"{values['gain']:.2f}×",
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
    console = standard_console(highlight=False)
    for environment, decisions in by_environment(document):
        console.print(heading(environment))
        for decision in sorted_decisions(decisions):
            digest = decision.problem.digest[:SHORT_DIGEST]
            console.print(Text.assemble((digest, "dim"), f"  {decision.problem}"), "")
            for name in PASSES:
                if name in decision.passes:
                    show_pass(console, name, decision)


def show_pass(console: rich.console.Console, name: str, decision: Decision) -> None:
    comparison = decision.passes[name]
    winner = getattr(dispatcher.plan_of(decision), name)
    title = Text.assemble(
        (name, "bold"), f": {winner}, measured {printable(comparison.measured)}"
    )
    console.print(title)
    if comparison.overruled:
        console.print(Text(f"overruled: {printable(comparison.overruled)}", "yellow"))
    console.print(candidates_table(comparison, winner), "", sep="\n")


def candidates_table(comparison: Comparison, winner: str) -> Table:
    table = plain_table()
    table.add_column("candidate", overflow="fold")
    for head in ("time", "gain", "at least", "error"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("why it has no time", overflow="fold")
    native = comparison.seconds.get("native")
    for name, outcome in sorted(comparison.outcomes.items(), key=fastest_first):
        table.add_row(
            Text(printable(name), style="bold green" if name == winner else ""),
            "" if outcome.seconds is None else duration(outcome.seconds),
            times(native and outcome.seconds and native / outcome.seconds),
            times(outcome.gain),
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


def times(ratio: float | None) -> str:
    return f"{ratio:.2f}×" if ratio else ""


def duration(seconds: float) -> str:
    """A time as text, to three digits in a suitable unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


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
