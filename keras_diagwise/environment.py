"""The environment that a measurement holds for."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_diagwise import backends
from keras_diagwise.algorithms import ALGORITHMS

Pairs = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Environment:
    """Where a decision was measured.

    Attributes:
        backend: Keras backend.
        compiler_mode: `"eager"`, `"graph"`, `"xla"` or `"inductor"`.
        device_kind: `"cpu"`, `"gpu"` or `"tpu"`.
        device_name: the device's own name.
        cores: CPU cores that the process may use; on a GPU its multiprocessors, where
            the backend reports them.
        flags: settings of precision and determinism, by name.
        versions: versions of the backend and of the libraries and the driver that
            it computes with, by name.
        revisions: revision of each algorithm for this kind of device, by its name.
        vector_bits: width of the CPU's widest vectors, in which CPUs of one name can
            differ; `None` for other devices.
    """

    backend: str
    compiler_mode: str
    device_kind: str
    device_name: str
    cores: int
    flags: Pairs
    versions: Pairs
    revisions: Pairs
    vector_bits: int | None = None

    def __post_init__(self):
        for name in PAIRS:
            object.__setattr__(self, name, tuple(sorted(getattr(self, name))))

    @classmethod
    def current(cls) -> Environment:
        """The environment that a model traced now would run in."""
        known = backends.active.environment()
        if known["device_kind"] == "cpu":
            known["device_name"] = cpu_name()
            known["vector_bits"] = vector_bits()
        if known["device_kind"] == "gpu":
            known["versions"]["driver"] = driver_version()
        return cls(
            backend=keras.backend.backend(),
            cores=known.pop("cores", None) or usable_cores(),
            revisions=tuple(
                (name, algorithm.revision)
                for name, algorithm in ALGORITHMS.items()
                if algorithm.is_for(known["device_kind"])
            ),
            flags=tuple(known.pop("flags").items()),
            versions=tuple(known.pop("versions").items()),
            **known,
        )

    def is_same_place(self, other: Environment) -> bool:
        """Whether `other` differs at most in versions and revisions."""
        fields = ("backend", "compiler_mode", *DEVICE, "flags")
        return self._agrees(other, *fields)

    def is_same_kind(self, other: Environment) -> bool:
        """Whether `other` is a device of the same kind under the same backend,
        compiler mode and algorithms."""
        fields = ("backend", "compiler_mode", "device_kind", "revisions")
        return self._agrees(other, *fields)

    def distance(self, other: Environment) -> tuple[float, float]:
        """Distance to a device of the same kind: first in vector width, then in cores,
        in powers of two. An unknown width is farther than any."""
        return (
            powers_of_two(self.vector_bits, other.vector_bits),
            powers_of_two(self.cores, other.cores),
        )

    def is_same_device(self, other: Environment) -> bool:
        """Whether `other` is the same device, under any backend."""
        return self._agrees(other, *DEVICE)

    def computes_like(self, other: Environment) -> bool:
        """Whether plans measured here can run in `other`: same backend, same kind."""
        return self._agrees(other, "backend", "device_kind")

    def changes_since(self, other: Environment) -> list[str]:
        """The versions and revisions that differ from those of `other`, in words."""
        changes = []
        for label, name in (("", "versions"), ("revision of ", "revisions")):
            then, now = dict(getattr(other, name)), dict(getattr(self, name))
            changes += [
                f"{label}{each} {then.get(each, 'none')} then, "
                f"{now.get(each, 'none')} now"
                for each in sorted(then.keys() | now.keys())
                if then.get(each) != now.get(each)
            ]
        return changes

    def _agrees(self, other: Environment, *fields: str) -> bool:
        return all(getattr(self, f) == getattr(other, f) for f in fields)

    @functools.cached_property
    def digest(self) -> str:
        """A short hash of the environment."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict:
        """The environment as JSON types; the inverse of `from_dict`."""
        values = dataclasses.asdict(self)
        if self.vector_bits is None:
            del values["vector_bits"]
        return {**values, **{name: dict(values[name]) for name in PAIRS}}

    @classmethod
    def from_dict(cls, values: Mapping) -> Environment:
        """The environment written by `to_dict`.

        Raises:
            ValueError: if `values` is not an environment.
        """
        names = {field.name for field in dataclasses.fields(cls)} - {"vector_bits"}
        plain = (str, int, bool, type(None))
        if (
            not isinstance(values, Mapping)
            or set(values) - {"vector_bits"} != names
            or not all(isinstance(values[name], dict) for name in PAIRS)
            or not all(type(v) in plain for n in PAIRS for v in values[n].values())
            or not all(isinstance(values[name], str) for name in WORDS)
            or not is_count(values["cores"])
            or not is_count(values.get("vector_bits", 1))
            or not all(is_plain_text(text) for text in texts_in(values))
            or len(json.dumps(values)) > MAX_LETTERS
        ):
            raise ValueError(
                f"An environment must have {sorted(names)}. Received: {values!r}"
            )
        pairs = {name: tuple(values[name].items()) for name in PAIRS}
        return cls(**{**values, **pairs})

    @property
    def device(self) -> str:
        """The device, in words."""
        parts = [self.device_kind, f"{self.cores} cores"]
        if self.vector_bits:
            parts.append(f"{self.vector_bits}-bit vectors")
        return f"{self.device_name} ({', '.join(parts)})"

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {each}" for name, each in self.versions if each)
        return f"{self.device}, {self.compiler_mode}, {versions}"


def texts_in(values: Mapping) -> Iterator[str]:
    """The texts of an environment, which are displayed and logged."""
    for name in PAIRS:
        for key, each in values[name].items():
            yield from (text for text in (key, each) if isinstance(text, str))
    yield from (values[name] for name in WORDS)


def is_plain_text(text: str) -> bool:
    """Whether `text` is one line that is safe for a terminal."""
    return text.isprintable() and len(text) <= MAX_TEXT


MAX_TEXT = 2000

PAIRS = ("flags", "versions", "revisions")
MAX_LETTERS = 2**16
WORDS = ("backend", "compiler_mode", "device_kind", "device_name")
DEVICE = ("device_kind", "device_name", "cores", "vector_bits")


def is_count(value: object) -> bool:
    """Whether a value is a positive int."""
    return type(value) is int and value > 0


def powers_of_two(one: int | None, other: int | None) -> float:
    """Doublings between two sizes; infinite if one of them is unknown."""
    if not one or not other:
        return 0.0 if one == other else math.inf
    return abs(math.log2(one / other))


@functools.cache
def cpu_name() -> str:
    """The processor's name, as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return " ".join((names or [platform.processor() or platform.machine()])[0].split())


VECTORS = {
    512: ("AVX512", "X86_V4"),
    256: ("AVX2", "X86_V3"),
    128: ("SSE", "X86_V2", "NEON", "ASIMD", "VSX", "VX"),
}
"""Prefixes of NumPy's names of instruction sets, by vector width in bits; those of x86
changed in NumPy 2.4."""


@functools.cache
def vector_bits() -> int | None:
    """Width in bits of this CPU's widest vectors, or `None` if NumPy reports none."""
    known = np.show_config(mode="dicts")
    extensions = known.get("SIMD Extensions", {})
    names = [*extensions.get("baseline", ()), *extensions.get("found", ())]
    widths = (
        bits
        for bits, starts in VECTORS.items()
        if any(name.startswith(starts) for name in names)
    )
    return max(widths, default=None)


DRIVER = Path("/proc/driver/nvidia/version")


@functools.cache
def driver_version() -> str | None:
    """The version of NVIDIA's driver, or `None` if the system reports none."""
    try:
        text = DRIVER.read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+\.\d[\d.]*)", text)
    return found and found[1]


def usable_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
