"""The environment: what a measurement holds for."""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
from pathlib import Path

import keras

from keras_diagwise import backends
from keras_diagwise.algorithms import ALGORITHMS


@dataclasses.dataclass(frozen=True)
class Environment:
    """Where a decision was measured.

    Attributes:
        backend: Keras backend.
        backend_version: its version.
        compiler_mode: `"eager"`, `"graph"`, `"xla"` or `"inductor"`.
        device_kind: `"cpu"`, `"gpu"` or `"tpu"`.
        device_name: the device's own name.
        cores: CPU cores that the process may use.
        revisions: revision of each algorithm, by its name.
    """

    backend: str
    backend_version: str
    compiler_mode: str
    device_kind: str
    device_name: str
    cores: int
    revisions: tuple[tuple[str, int], ...]

    @classmethod
    def current(cls) -> Environment:
        """The environment that a model traced now would run in."""
        known = backends.active.environment()
        if known["device_kind"] == "cpu":
            known["device_name"] = cpu_name()
        return cls(
            backend=keras.backend.backend(),
            cores=usable_cores(),
            revisions=tuple((name, a.revision) for name, a in ALGORITHMS.items()),
            **known,
        )

    def is_same_kind(self, other: Environment) -> bool:
        """Whether `other` is another device of the same kind under the same
        backend, compiler mode and algorithms."""
        fields = ("backend", "compiler_mode", "device_kind", "revisions")
        return all(getattr(self, f) == getattr(other, f) for f in fields)

    def to_dict(self) -> dict:
        """The environment in JSON's types; `from_dict` is the way back."""
        return {**dataclasses.asdict(self), "revisions": dict(self.revisions)}

    @classmethod
    def from_dict(cls, values: dict) -> Environment:
        """The environment that `to_dict` wrote."""
        return cls(**{**values, "revisions": tuple(values["revisions"].items())})


@functools.cache
def cpu_name() -> str:
    """The processor's own name, so far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return " ".join((names or [platform.processor() or platform.machine()])[0].split())


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
