"""Summarizes the suite's records.

python -m tuning.summary FILE …     (lines of `tuning.suite`)
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

import rich.box
import rich.console
import rich.table

from keras_diagwise.problem import PASSES, Problem
from tuning.ratios import geometric_mean
from tuning.records import Records
from tuning.workloads import LARGER_THAN_CACHES


def median_of(kind: dict, pass_name: str, candidate: str) -> float:
    return statistics.median(kind["seconds"][pass_name][candidate])


def total(kind: dict, plan: dict | None = None) -> float:
    """Seconds of the three passes by a plan, or by native."""
    return sum(
        median_of(kind, name, plan[name] if plan else "native") for name in PASSES
    )


def is_complete(kind: dict) -> bool:
    """Whether native and the plan were timed in each pass."""
    plan, times = kind.get("plan"), kind.get("seconds", {})
    return bool(plan) and all(
        {"native", plan[name]} <= set(times.get(name, ())) for name in PASSES
    )


def best_peer(line: dict, kind: str) -> tuple[str, float] | None:
    """The other backend whose native is fastest, and its seconds."""
    peers = {
        name: total(each)
        for name, each in line["kinds"].items()
        if name.partition("-")[0] != kind.partition("-")[0] and is_complete(each)
    }
    return min(peers.items(), key=lambda item: item[1]) if peers else None


def table_of(lines: list[dict], kind: str) -> rich.table.Table:
    """A row for each problem of one kind."""
    table = rich.table.Table(box=rich.box.SIMPLE, title=kind)
    table.add_column("problem")
    for heading in ("native", "plan", "ratio", "best peer", "of it", "roofline"):
        table.add_column(heading, justify="right")
    for line in lines:
        found = line["kinds"].get(kind, {})
        if not is_complete(found):
            continue
        native, planned = total(found), total(found, found["plan"])
        peer = best_peer(line, kind)
        table.add_row(
            str(Problem.from_dict(line["key"])),
            f"{1e3 * native:.3g} ms",
            f"{1e3 * planned:.3g} ms",
            f"{native / planned:.2f}×",
            f"{1e3 * peer[1]:.3g} {peer[0]}" if peer else "",
            f"{planned / peer[1]:.2f}" if peer else "",
            f"{planned / (3 * found['least']):.1f}×",
        )
    return table


def means_of(lines: Iterable[dict], kind: str) -> dict[str, float]:
    """Geometric means over the problems of one kind."""
    ratios, of_peer = [], []
    near: dict[str, list[float]] = {name: [] for name in PASSES}
    for line in lines:
        found = line["kinds"].get(kind, {})
        if not is_complete(found):
            continue
        ratios.append(total(found) / total(found, found["plan"]))
        peer = best_peer(line, kind)
        if peer:
            of_peer.append(total(found, found["plan"]) / peer[1])
        if Problem.from_dict(line["key"]).least_bytes > LARGER_THAN_CACHES:
            for name in PASSES:
                planned = median_of(found, name, found["plan"][name])
                near[name].append(planned / found["least"])
    if not ratios:
        return {}
    return {
        "problems": len(ratios),
        "native over plan": geometric_mean(ratios),
        "least of it": min(ratios),
        **({"plan over best peer": geometric_mean(of_peer)} if of_peer else {}),
        **{
            f"{name} over roofline, large": geometric_mean(each)
            for name, each in near.items()
            if each
        },
    }


FAR = 1.5
"""Multiple of the roofline past which there is time left to gain."""


def far_from(lines: Iterable[dict], kind: str) -> rich.table.Table:
    """Passes whose best candidate takes far longer than the roofline."""
    table = rich.table.Table(
        box=rich.box.SIMPLE, title=f"{kind}: far from the roofline"
    )
    table.add_column("problem")
    for heading in ("pass", "best", "ms", "of the least"):
        table.add_column(heading, justify="right")
    for line in lines:
        found = line["kinds"].get(kind, {})
        for name, seconds in found.get("seconds", {}).items():
            best = min(seconds, key=lambda each: median_of(found, name, each))
            taken = median_of(found, name, best)
            if taken > FAR * found["least"]:
                table.add_row(
                    str(Problem.from_dict(line["key"])),
                    name,
                    best,
                    f"{1e3 * taken:.3g}",
                    f"{taken / found['least']:.1f}×",
                )
    return table


def print_summary(lines: list[dict]) -> None:
    """Prints tables for each kind, then the means."""
    console = rich.console.Console()
    kinds = list(dict.fromkeys(kind for line in lines for kind in line["kinds"]))
    for kind in kinds:
        console.print(table_of(lines, kind))
        console.print(far_from(lines, kind))
    for kind in kinds:
        means = means_of(lines, kind).items()
        console.print(kind, ", ".join(f"{key} {value:.3g}" for key, value in means))


if __name__ == "__main__":
    print_summary([line for path in sys.argv[1:] for line in Records(Path(path)).lines])
