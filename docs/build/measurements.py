"""The committed measurements, as the pages and figures read them."""

from __future__ import annotations

import json
from collections.abc import Iterator

from keras_diagwise.planning.planner import SHIPPED
from keras_diagwise.problem import Problem
from tuning.records import RESULTS, Records

KINDS = {
    "jax": "JAX",
    "tensorflow-xla": "TensorFlow, jit_compile",
    "tensorflow": "TensorFlow, graph",
    "torch": "torch, eager",
}
"""Display names of the kinds: a backend in a compiler mode."""

WHOLE_MODEL = {
    "jax": ("acceptance-jax.json", "model"),
    "tensorflow-xla": ("acceptance-tensorflow.json", "model_jit_compile"),
    "tensorflow": ("acceptance-tensorflow.json", "model"),
    "torch": ("acceptance-torch.json", "model"),
}
"""File and part of a whole model's measurement, by kind."""


def read(name: str) -> dict:
    """Contents of a file of results."""
    return json.loads((RESULTS / name).read_text())


def results_of(pattern: str) -> Iterator[tuple[str, dict]]:
    """Stem and contents of each file of results that a pattern matches."""
    return ((path.stem, read(path.name)) for path in sorted(RESULTS.glob(pattern)))


def records_of(part: str) -> list[dict]:
    """Records of a part of the campaign, of every device."""
    paths = sorted(RESULTS.glob(f"*/{part}.jsonl"))
    return [line for path in paths for line in Records(path).lines]


def shipped(pattern: str = "*.json") -> Iterator[tuple[dict, dict[Problem, dict]]]:
    """Each environment of the shipped documents that a pattern matches, with the
    comparisons of each of its problems, by pass."""
    for path in sorted(SHIPPED.glob(pattern)):
        for each in json.loads(path.read_text())["environments"]:
            yield (
                each["environment"],
                {
                    Problem.from_dict(d["problem"]): d["passes"]
                    for d in each["decisions"]
                },
            )


def kind_of(environment: dict) -> str:
    """The kind of an environment, one of `KINDS`."""
    backend = environment["backend"]
    is_xla = environment["compiler_mode"] == "xla"
    return f"{backend}-xla" if backend == "tensorflow" and is_xla else backend


def place(environment: dict) -> str:
    """Device and versions of an environment, as text."""
    versions = environment.get("versions") or {
        environment["backend"]: environment["backend_version"]
    }
    named = ", ".join(f"{name} {each}" for name, each in versions.items() if each)
    device = f"{environment['device_name']}, {environment['cores']} cores"
    if "vector_bits" in environment:
        device += f", {environment['vector_bits']}-bit vectors"
    return f"{device}, {named}"


def words(pass_name: str) -> str:
    """The name of a pass, as text."""
    return pass_name.replace("_", " ")
