"""Attributes of any object: those in its dictionary, and those in its slots."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from typing import Any


def attributes_of(each: Any) -> dict[str, Any]:
    """Attributes of an object itself, in its dictionary or in slots."""
    kind: Any = type(each)
    own = dict(vars(each)) if kind.__dictoffset__ else {}
    return own | {n: getattr(each, n) for n in slots_of(kind) if hasattr(each, n)}


@functools.lru_cache(maxsize=1024)
def slots_of(cls: Any) -> tuple[str, ...]:
    """Names of the slots of a class and its bases."""
    return tuple(
        name
        for base in cls.__mro__
        if "__slots__" in vars(base)
        for name, each in vars(base).items()
        if isinstance(each, types.MemberDescriptorType)
    )


def put_attributes(each: Any, attributes: Mapping[str, Any]) -> None:
    """Replaces an object's attributes without calling a method of its class."""
    kind: Any = type(each)
    slots = slots_of(kind)
    for name in slots:
        if name in attributes:
            object.__setattr__(each, name, attributes[name])
        elif hasattr(each, name):
            object.__delattr__(each, name)
    if kind.__dictoffset__:
        vars(each).clear()
        vars(each).update({n: v for n, v in attributes.items() if n not in slots})
