"""The environment that a measurement holds for."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import platform
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
from msgspec import Meta

from keras_diagwise import backends
from keras_diagwise.algorithms import ALGORITHMS
from keras_diagwise.records import Record

Pairs = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Environment:
    """Where a decision was measured.

    Attributes:
        backend: Keras backend.
        compiler_mode: `"eager"`, `"graph"`, `"xla"` or `"inductor"`.
        device_kind: `"cpu"`, `"gpu"`, `"tpu"`, or `"mps"`, a Mac's GPU under torch.
        device_name: the device's own name.
        cores: CPU cores that the process may use; on a GPU its multiprocessors, where
            the backend reports them.
        flags: settings of precision and determinism, by name.
        versions: versions of the backend and of the libraries and the driver that
            it computes with, by name.
        revisions: revision of each algorithm for this kind of device, by its name,
            first ones left out: a new algorithm makes no new environment, and leaves
            what was measured of the others valid.
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
        later = tuple(each for each in self.revisions if each[1] != FIRST_REVISION)
        object.__setattr__(self, "revisions", later)
        for name in PAIRS:
            object.__setattr__(self, name, tuple(sorted(getattr(self, name))))

    @classmethod
    def current(cls) -> Environment:
        """The environment that a model traced now would run in."""
        known = backends.active.environment()
        if known["device_kind"] in ("cpu", "mps"):  # a Mac's GPU is named by its chip
            known["device_name"] = cpu_name()
        if known["device_kind"] == "cpu":
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
        for label, name, unlisted in (
            ("", "versions", "none"),
            ("revision of ", "revisions", FIRST_REVISION),
        ):
            then, now = dict(getattr(other, name)), dict(getattr(self, name))
            changes += [
                f"{label}{each} {then.get(each, unlisted)} then, "
                f"{now.get(each, unlisted)} now"
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
    def from_dict(cls, values: Any) -> Environment:
        """The environment written by `to_dict`.

        Raises:
            ValueError: if `values` is not an environment.
        """
        EnvironmentFields.from_dict(values)
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


FIRST_REVISION = 1

PAIRS = ("flags", "versions", "revisions")
DEVICE = ("device_kind", "device_name", "cores", "vector_bits")

MAX_LETTERS = 2**16
Count = Annotated[int, Meta(ge=1)]
Text = Annotated[str, Meta(max_length=2000)]
Named = dict[Text, Text | int | bool | None]


class EnvironmentFields(Record, frozen=True):
    """An environment as JSON has it."""

    RULE = "An environment must have a device, settings and versions"

    backend: Text
    compiler_mode: Text
    device_kind: Text
    device_name: Text
    cores: Count
    flags: Named
    versions: Named
    revisions: Named
    vector_bits: Count = 0  # left out if unknown

    def check(self) -> None:
        letters = len(json.dumps(self.to_dict()))
        if letters > MAX_LETTERS:
            raise ValueError(
                f"An environment must have {MAX_LETTERS} letters at most. "
                f"Received: {letters}"
            )
        words = (self.backend, self.compiler_mode, self.device_kind, self.device_name)
        pairs = (*self.flags.items(), *self.versions.items(), *self.revisions.items())
        texts = map(str, itertools.chain(words, *pairs))
        if not all(map(str.isprintable, texts)):  # they are displayed and logged
            raise ValueError(
                "An environment must have lines of text that are safe for a terminal. "
                f"Received: {self.to_dict()}"
            )


def powers_of_two(one: int | None, other: int | None) -> float:
    """Doublings between two sizes; infinite if one of them is unknown."""
    if not one or not other:
        return 0.0 if one == other else math.inf
    return abs(math.log2(one / other))


CPU_INFO = Path("/proc/cpuinfo")


@functools.cache
def cpu_name() -> str:
    """The processor's model, as the system reports it."""
    name = linux_model() or macos_model() or platform.processor() or platform.machine()
    return " ".join(name.split())


def linux_model() -> str | None:
    """The model of the first processor that Linux lists."""
    try:
        text = CPU_INFO.read_text(encoding="utf-8")
    except OSError:
        return None
    first = text.strip().partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    known = {name.strip(): value.strip() for name, _, value in pairs}
    if "CPU part" in known:  # ARM: numbers, of the maker and the model
        return f"ARM {known.get('CPU implementer')} {known['CPU part']}"
    return known.get("model name")


SYSCTL = "/usr/sbin/sysctl"


def macos_model() -> str | None:
    """The chip of a Mac, such as Apple M2; Python itself names its architecture."""
    if sys.platform != "darwin":
        return None
    import subprocess  # here alone: on other systems a layer starts no process

    command = [SYSCTL, "-n", "machdep.cpu.brand_string"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


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


CGROUP = Path("/sys/fs/cgroup")
QUOTA_FILES = ("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
"""Where Linux tells a container its CPU time and the period that it is for: version 2
of control groups, and version 1."""


@functools.cache
def core_quota() -> int | None:
    """The cores whose time a container may use, rounded up; `None` if all."""
    for names in QUOTA_FILES:
        try:
            text = " ".join((CGROUP / each).read_text() for each in names)
            quota, period = map(int, text.split())
        except (OSError, ValueError):  # "max"
            continue
        if quota > 0:
            return math.ceil(quota / period)
    return None


def usable_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min(cores, core_quota() or cores)
