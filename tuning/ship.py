"""Measures the decisions that ship with the package: `nox -s ship`.

    python -m tuning.ship [--compiler-mode xla] [--models-only] [--add] [--to FILE]
    python -m tuning.ship --collected FOLDER

`--collected` measures nothing: it adds the documents in a folder, as a campaign leaves
them there, to the shipped decisions.

`--add` keeps the document's decisions for this very environment and measures missing
ones. Each pass is kept in the user's store as soon as it is decided, so that an
interrupted run resumes. The document holds timed candidates; the reasons why others
were not timed stay in the store.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import time
from pathlib import Path

import msgspec

from keras_diagwise.decision import Decision
from keras_diagwise.environment import Environment
from keras_diagwise.ops import dispatcher
from keras_diagwise.planning.dispatch import why_not_served
from keras_diagwise.planning.planner import MARGIN_MEASURED, SHIPPED
from keras_diagwise.storage.document import Document
from keras_diagwise.tuner.runner import BudgetSpentError
from keras_diagwise.tuner.tuner import Tuner
from tuning.workloads import model_problems, shipped_problems


def timed_only(decision: Decision) -> Decision:
    """A decision without untimed candidates. A failed native stays: the fastest serves
    then."""
    passes = {}
    for name, comparison in decision.passes.items():
        outcomes = comparison.outcomes.items()
        timed = {n: o for n, o in outcomes if o.failure is None or n == "native"}
        passes[name] = msgspec.structs.replace(comparison, outcomes=timed)
    return Decision(decision.problem, passes)


def document_name(environment: Environment) -> str:
    """File name of the shipped decisions of an environment's kind."""
    kind, mode = environment.device_kind, environment.compiler_mode
    return f"{kind}-{environment.backend}-{mode}.json"


def collect(environment: Environment, folder: Path) -> int:
    """Adds the store's decisions of an environment's device, under any flags, to the
    documents in a folder, one for each backend and compiler mode.

    Returns:
        How many decisions the store holds of it.
    """
    found = collections.defaultdict(list)
    for each, decision in dispatcher.store.document():
        if each.device_name == environment.device_name and why_not_served(each) is None:
            found[document_name(each)].append((each, timed_only(decision)))
    for name, pairs in found.items():
        add(Document.merged(pairs), folder / name)
    return sum(map(len, found.values()))


def add(document: Document, path: Path) -> None:
    """Merges a document into a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = Document.read(path) if path.exists() else Document()
    (known | document).write(path)


def ship_collected(folder: Path) -> None:
    """Adds the documents in a folder to the shipped decisions."""
    for path in sorted(folder.glob("*.json")):
        add(Document.read(path), SHIPPED / path.name)
        print(f"{path.name}: {len(Document.read(SHIPPED / path.name))} decisions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compiler-mode")
    parser.add_argument("--models-only", action="store_true")
    parser.add_argument("--add", action="store_true")
    parser.add_argument("--collected", type=Path)
    parser.add_argument("--to", type=Path)
    parser.add_argument("--stop-after", type=float, default=float("inf"))
    options = parser.parse_args()
    if options.collected:
        ship_collected(options.collected)
        return
    environment = Environment.current()
    if options.compiler_mode:
        mode = options.compiler_mode
        environment = dataclasses.replace(environment, compiler_mode=mode)
    path = options.to or SHIPPED / document_name(environment)
    problems = shipped_problems(environment)
    if options.models_only:
        wanted = set(model_problems())
        problems = [each for each in problems if each in wanted]
    known = Document.read(path) if options.add else Document()
    until = time.monotonic() + options.stop_after
    tuner = Tuner(dispatcher.store, environment, until=until)
    decisions = []
    try:
        for number, problem in enumerate(problems, 1):
            decision = known.get(environment, problem) or tuner.tune(problem)
            decisions.append(timed_only(decision))
            plan = decision.plan(MARGIN_MEASURED)
            gain = decision.gain(plan) or float("nan")
            text = f"{number}/{len(problems)} {problem}: {plan}, {gain:.2f}×"
            print(text, flush=True)
    except BudgetSpentError:
        raise SystemExit("The time is over. Run it again to go on.") from None
    finally:
        tuner.close()
    others = others_shipped(path, environment)
    (others | Document.of(environment, decisions)).write(path)


def others_shipped(path: Path, environment: Environment) -> Document:
    """The decisions of other devices in a shipped file."""
    if not path.exists():
        return Document()
    return Document(
        {
            other: decisions
            for other, decisions in Document.read(path).entries.items()
            if not other.is_same_device(environment)
        }
    )


if __name__ == "__main__":
    main()
