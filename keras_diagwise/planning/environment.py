"""The environment: what a measurement holds for."""

from __future__ import annotations

import dataclasses
import os

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
        return cls(
            backend=keras.backend.backend(),
            cores=len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1,
            revisions=tuple((name, a.revision) for name, a in ALGORITHMS.items()),
            **backends.active.environment(),
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
