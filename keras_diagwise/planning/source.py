"""The sources of a plan."""

from __future__ import annotations

import enum


class PlanSource(str, enum.Enum):
    """Where a plan comes from, in order of precedence. Tables and JSON show the values,
    as `rung`.

    Attributes:
        description: what the source is, in words.
    """

    description: str

    LAYER = "layer", "the plan was given on the layer"
    DECISION = (
        "decision",
        "measured for this very problem, on this machine or on one of the same device "
        "and versions: such decisions come with the package, too",
    )
    OTHER_VERSIONS = (
        "other versions",
        "measured for this very problem on this device, under other versions",
    )
    NEAREST = (
        "nearest",
        "the nearest problem that was measured speaks for it: on this machine, or on "
        "one of the same device and versions",
    )
    OTHER_DEVICE = (
        "other device",
        "measured on another device of the kind; comes with the package",
    )
    NATIVE = "native", "nothing measured speaks for it: stock's own operation"
    NOT_CALLED = "not called yet", "the shape of its inputs is not known"

    def __new__(cls, value: str, description: str = "") -> PlanSource:
        source = str.__new__(cls, value)
        source._value_ = value
        source.description = description
        return source

    def __str__(self) -> str:
        return self.value

    def __repr__(self) -> str:
        return repr(self.value)
