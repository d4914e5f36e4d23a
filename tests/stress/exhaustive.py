"""Compares the tuner's pruned search with an exhaustive one.

    python -m tests.stress.exhaustive STORE [--stop-after SECONDS]

Tunes MobileNetV2 at 96 pixels and batch 16 twice: as `keras_diagwise.tune` does, and
with every candidate that memory and arithmetic do not rule out. The plans of the first
are compared with the best of the second, by the second's times. Writes
tuning/results/exhaustive-<backend>-<compiler mode>.json. STORE is a folder that keeps
both, so that an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

from keras_diagwise.decision import Comparison
from keras_diagwise.planning.planner import MARGIN_MEASURED
from keras_diagwise.problem import PASSES
from keras_diagwise.storage.store import Store
from keras_diagwise.tuner.runner import BudgetSpentError
from keras_diagwise.tuner.tuner import Tuner
from tuning.acceptance import BATCH, IMAGE_SIZE, MODEL
from tuning.records import results_name, write
from tuning.workloads import application, grouped_problems


def tuned(problems, store: Path, until: float, exhaustive: bool):
    """The environment, the decisions, and the seconds that they took."""
    started = time.monotonic()
    tuner = Tuner(Store(store), until=until, exhaustive=exhaustive)
    try:
        decisions = {}
        for problem in problems:
            decisions[problem] = tuner.tune(
                problem, on_done=lambda name, p=problem: print(name, p, flush=True)
            )
        return tuner.environment, decisions, time.monotonic() - started
    except BudgetSpentError:
        raise SystemExit("The time is over. Run it again to go on.") from None
    finally:
        tuner.close()


def counted(comparison: Comparison) -> Counter:
    """Number of candidates by outcome."""
    return Counter(each.failure or "timed" for each in comparison.outcomes.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--stop-after", type=float, default=float("inf"))
    options = parser.parse_args()
    until = time.monotonic() + options.stop_after
    problems = grouped_problems(application(MODEL, IMAGE_SIZE), BATCH)
    environment, quick, seconds = tuned(problems, options.store / "quick", until, False)
    _, every, longer = tuned(problems, options.store / "every", until, True)
    chosen = best = 0.0
    each = []
    for problem in problems:
        plan = quick[problem].plan(MARGIN_MEASURED)
        for name in PASSES:
            times = every[problem].passes[name].seconds
            fastest = min(times, key=lambda candidate: (times[candidate], candidate))
            chosen += times[str(plan[name])]
            best += times[fastest]
            each.append(
                {
                    "problem": str(problem),
                    "pass": name,
                    "chosen": str(plan[name]),
                    "best": fastest,
                    "chosen_over_best": times[str(plan[name])] / times[fastest],
                    "quick": counted(quick[problem].passes[name]),
                    "exhaustive": counted(every[problem].passes[name]),
                }
            )
    result = {
        "environment": environment.to_dict(),
        "workload": f"{MODEL}, {IMAGE_SIZE} pixels, batch {BATCH}",
        "seconds": {"quick": seconds, "exhaustive": longer},
        "total_of_chosen_over_best": chosen / best,
        "each": each,
    }
    write(results_name("exhaustive", environment), result)
    print(f"chosen over best: {chosen / best:.3f}")


if __name__ == "__main__":
    main()
