"""Measures the decisions that ship with the package: `nox -s ship`.

    python -m tuning.ship [--compiler-mode xla] [--models-only] [--add] [--to FILE]
    python -m tuning.ship --measured

`--measured` measures nothing: what the user's store holds of this device, under
whatever flags, is added to what ships, for each backend and compiler mode.

`--add` keeps what the document holds of this very environment and measures what it
lacks. Each pass is kept in the user's store as soon as it is decided: a run that was
interrupted goes on where it was. The document holds what was timed; why other
candidates were not is left in the store.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import time
from pathlib import Path

from keras_diagwise.conductor import conductor, is_served
from keras_diagwise.planning.decision import Decision
from keras_diagwise.planning.document import Document
from keras_diagwise.planning.environment import Environment
from keras_diagwise.planning.planner import MARGIN_MEASURED, SHIPPED
from keras_diagwise.tuner.tuner import BudgetSpentError, Tuner
from tuning.workloads import model_problems, shipped_problems


def timed_only(decision: Decision) -> Decision:
    """A decision without the candidates that were not timed, but for native: where it
    failed, the fastest serves."""
    passes = {}
    for name, comparison in decision.passes.items():
        outcomes = comparison.outcomes.items()
        timed = {n: o for n, o in outcomes if o.failure is None or n == "native"}
        passes[name] = dataclasses.replace(comparison, outcomes=timed)
    return Decision(decision.problem, passes)


def document_name(environment: Environment) -> str:
    """The name of the file of what is shipped for an environment's kind."""
    kind, mode = environment.device_kind, environment.compiler_mode
    return f"{kind}-{environment.backend}-{mode}.json"


def ship_measured(environment: Environment) -> None:
    """Adds what the store holds of an environment's device to what ships."""
    found = collections.defaultdict(list)
    for each, decision in conductor.store.document():
        if each.device_name == environment.device_name and is_served(each):
            found[document_name(each)].append((each, timed_only(decision)))
    for name, pairs in found.items():
        path = SHIPPED / name
        document = Document.read(path) if path.exists() else Document()
        document |= Document.merged(pairs)
        document.write(path)
        print(f"{name}: {len(document)} decisions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compiler-mode")
    parser.add_argument("--models-only", action="store_true")
    parser.add_argument("--add", action="store_true")
    parser.add_argument("--measured", action="store_true")
    parser.add_argument("--to", type=Path)
    parser.add_argument("--stop-after", type=float, default=float("inf"))
    options = parser.parse_args()
    environment = Environment.current()
    if options.measured:
        ship_measured(environment)
        return
    if options.compiler_mode:
        mode = options.compiler_mode
        environment = dataclasses.replace(environment, compiler_mode=mode)
    path = options.to or SHIPPED / document_name(environment)
    problems = model_problems() if options.models_only else shipped_problems()
    known = Document.read(path) if options.add else Document()
    until = time.monotonic() + options.stop_after
    tuner = Tuner(conductor.store, environment, until=until)
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
    Document.of(environment, decisions).write(path)


if __name__ == "__main__":
    main()
