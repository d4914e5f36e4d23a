"""The sources of a plan."""

from __future__ import annotations

import enum


class PlanSource(str, enum.Enum):
    """Where a plan comes from, in order of precedence; `NOT_CALLED` stands in for the
    rest until a layer is called. Tables and JSON show the values, as `rung`.

    Attributes:
        description: what the source is, in words.
    """

    description: str

    LAYER = "layer", "the plan was given on the layer"
    DECISION = (
        "decision",
        "measured for this problem, here or on the same device and versions elsewhere; "
        "some such decisions ship with the package",
    )
    OTHER_VERSIONS = (
        "other versions",
        "measured for this problem on this device, under other versions",
    )
    NEAREST = (
        "nearest",
        "measured for the nearest problem, here or on the same device and versions "
        "elsewhere",
    )
    OTHER_DEVICE = (
        "other device",
        "measured on another device of the same kind; ships with the package",
    )
    NATIVE = (
        "native",
        "no measurement applies: the default, the stock operation where it works well",
    )
    NOT_CALLED = "not called yet", "the shape of the inputs is not known yet"

    def __new__(cls, value: str, description: str = "") -> PlanSource:
        source = str.__new__(cls, value)
        source._value_ = value
        source.description = description
        return source

    def __str__(self) -> str:
        return self.value

    def __repr__(self) -> str:
        return repr(self.value)
