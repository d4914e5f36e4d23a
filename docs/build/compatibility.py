"""Data of the page of compatibility."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from docs.build.measurements import read, shipped
from keras_diagwise import backends
from keras_diagwise.planning.dispatch import NOT_SERVED
from tests.behaviours import DERIVATIVES, FILES, INFERENCE, Row
from tuning import keras_versions
from tuning.records import PACKAGES, known

ROOT = Path(__file__).parents[2]

NEEDED = {"python": 'requires-python = "', "keras": '"keras'}
"""Text before a version in pyproject.toml."""

MODES = (
    ("jax", "xla", "JAX", "the default"),
    ("tensorflow", "graph", "TensorFlow, graph", "the default without a GPU"),
    ("tensorflow", "xla", "TensorFlow, XLA", "`jit_compile=True`"),
    ("tensorflow", "eager", "TensorFlow, eager", "`run_eagerly=True`"),
    ("torch", "eager", "torch, eager", "the default"),
    ("torch", "inductor", "torch, `torch.compile`", "`jit_compile=True`"),
)
"""Backend, compiler mode, display name, and when it runs."""


def values() -> dict:
    """The values of the template."""
    project = (ROOT / "pyproject.toml").read_text()
    checks = (ROOT / ".github" / "workflows" / "checks.yml").read_text()
    pins = (ROOT / "constraints.txt").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.+]+)(?!.*<)", pins, re.MULTILINE))
    return {
        "needed": {
            name: re.search(f'{before}(>=.*?)"', project)[1]
            for name, before in NEEDED.items()
        },
        "tested": {
            "python": ", ".join(re.findall(r'python-version: "([\d.]+)"', checks)),
            "keras": pinned["keras"],
        },
        "versions": [f"{name} {pinned[name]}" for name in PACKAGES.values()],
        "runs": [run_cells(run) for run in read(keras_versions.RESULT)["runs"]],
        "backends": list(PACKAGES),
        "applications": coverage_rows("coverage"),
        "dense": [row[:3] for row in coverage_rows("coverage-dense")],
        "hub": coverage_rows("coverage-keras-hub"),
        "files": behaviours(FILES),
        "derivatives": behaviours(DERIVATIVES),
        "inference": behaviours(INFERENCE),
        "modes": mode_rows(),
    }


def run_cells(run: dict) -> tuple[str, ...]:
    """Test outcomes under a version of Keras."""
    backend = f"{PACKAGES[run['backend']]} {run['version']}"
    counts = (str(run[each]) for each in ("python", "passed", "failed", "skipped"))
    return run["keras"], backend, *counts


def coverage_rows(part: str) -> Iterator[tuple[str, ...]]:
    """A row for each model: its layers, and its largest error on each backend."""
    found = [known(f"{part}-{each}.json").get("models", {}) for each in PACKAGES]
    for name in sorted({each for models in found for each in models}):
        figures = [models.get(name) for models in found]
        layers = next(each["layers"] for each in figures if each and "layers" in each)
        yield name, str(layers), *map(coverage_cell, figures)


def coverage_cell(figures: dict | None) -> str:
    """The larger error of outputs and weights, or why there is none."""
    if figures is None:
        return "not run"
    failure = figures.get("stock_failure", "").partition(":")[0]
    if "outputs_error" not in figures:
        return f"stock: {failure}"
    error = f"{max(figures['outputs_error'], figures.get('step_error', 0)):.0e}"
    if not figures["is_right"]:
        return f"**differs** {error}"
    return f"{error}, stock's step: {failure}" if failure else error


def behaviours(rows: dict[str, Row]) -> dict:
    """Behaviours by backend: headings and rows of a table."""
    return {
        "headings": ["", *next(iter(rows.values()))],
        "rows": [(name, *map(str, cells.values())) for name, cells in rows.items()],
    }


def mode_rows() -> Iterator[tuple[str, ...]]:
    """Behaviour of the plan `"auto"` in each compiler mode before any tuning."""
    for backend, mode, name, when in MODES:
        count = shipped_count(backend, mode)
        if mode in NOT_SERVED:
            yield name, when, f"{NOT_SERVED[mode]}, always"
        elif count:
            yield name, when, f"shipped decisions for {count} problems on a CPU"
        else:
            yield name, when, "`native`, until you tune"
    names = ", ".join(backends.INFERENCE_ONLY)
    yield names, "prediction only", f"{NOT_SERVED['inference']}, always"


def shipped_count(backend: str, mode: str) -> int:
    """Number of shipped problems of a backend and mode."""
    found = (
        problems
        for environment, problems in shipped()
        if (environment["backend"], environment["compiler_mode"]) == (backend, mode)
    )
    return len(set(itertools.chain.from_iterable(found)))
