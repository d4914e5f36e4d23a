"""Data of the page of devices with shipped decisions."""

from __future__ import annotations

from docs.build.measurements import KINDS, kind_of, place, shipped


def values() -> dict:
    """The values of the template."""
    rows = []
    for here, problems in shipped():
        dense = sum(problem.is_dense for problem in problems)
        depthwise = sum(problem.is_depthwise for problem in problems)
        counts = depthwise, len(problems) - depthwise - dense, dense
        rows.append((f"{KINDS[kind_of(here)]}: {place(here)}", *map(str, counts)))
    return {"devices": rows}
