"""State reached by code that a model and its copy would both run."""

from __future__ import annotations

import collections
import dis
import functools
import inspect
import os
import sysconfig
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from keras_diagwise import backends
from keras_diagwise.models.kinds import Cell
from keras_diagwise.models.object_graph import ObjectGraph

MAX_VALUES = 20_000
"""Limit of the values inspected: code may reach a whole data set."""

LIBRARIES = (
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib")),
    *(sysconfig.get_path(name) for name in ("purelib", "platlib")),
    os.path.dirname(os.path.dirname(__file__)),
)

READS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")


class Reached(NamedTuple):
    """State that code reaches.

    Attributes:
        code: the class, or the function that a module holds.
        how: the path from the code to the state.
        state: the layer, variable or part of the model.
    """

    code: str
    how: str
    state: Any


def state_reached(graph: ObjectGraph) -> Reached | None:
    """The first state that user code reaches, or `None`.

    Follows the classes of a model's objects and its functions, through globals,
    closures, defaults and class attributes.
    """
    waiting: collections.deque[tuple[str, str, Any]] = collections.deque()
    for cls in {base for each in graph.objects for base in type(each).__mro__}:
        waiting.append((name_of(cls), "", cls))
    for function in (*graph.shared, *graph.objects):
        if isinstance(function, types.FunctionType):
            waiting.append((name_of(function), "", function))
    seen: dict[int, Any] = {}
    while waiting and len(seen) < MAX_VALUES:
        code, how, value = waiting.popleft()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        is_own = isinstance(value, types.FunctionType) and value in graph
        if how and not is_own and (is_part(value, graph) or is_state(value)):
            return Reached(code, how, value)
        for label, part in parts(value, is_own):
            waiting.append((code, how + label, part))
    return None


def is_part(value: Any, graph: ObjectGraph) -> bool:
    """Whether a value is a mutable part of a model."""
    return value in graph and not graph.contents[id(value)][0].is_immutable


def is_state(value: Any) -> bool:
    """Whether a value changes in training, so that two models can't share it."""
    if isinstance(value, keras.layers.Layer):
        return bool(value.variables) or not value.built
    return isinstance(value, (keras.Variable, *backends.active.STATE))


def parts(value: Any, is_own: bool) -> Iterator[tuple[str, Any]]:
    """Values that code reaches from a value, each with a label of how.

    Args:
        value: a function, class, container or other object.
        is_own: whether it is a function that a copy duplicates, closure included.
    """
    if isinstance(value, types.FunctionType):
        if is_of_a_user(value):
            variables = value.__globals__
            for name in names_read(value.__code__) & variables.keys():
                yield f" by its variable {name!r}", variables[name]
        if not is_own and is_of_a_user(value):
            yield from closed_over(value)
            for default in (value.__defaults__, value.__kwdefaults__):
                yield " by a default", default
            yield "", getattr(value, "__wrapped__", None)
    elif isinstance(value, type):
        if is_of_a_user(value):
            yield from ((f" by {name!r}", each) for name, each in vars(value).items())
    elif isinstance(value, property):
        yield from (("", each) for each in (value.fget, value.fset))
    elif isinstance(value, functools.partial | functools.partialmethod):
        yield from (("", each) for each in (value.func, value.args, value.keywords))
    elif isinstance(value, dict):
        yield from (("", each) for each in list(value.values()))
    elif isinstance(value, list | tuple | set | frozenset | collections.deque):
        yield from (("", each) for each in list(value))
    else:
        for name in ("__func__", "__self__", "__wrapped__", "func"):
            yield "", inspect.getattr_static(value, name, None)
        if is_of_a_user(type(value)) and type(value).__dictoffset__:
            yield from ((f" by {name!r}", each) for name, each in vars(value).items())


def is_of_a_user(code: Any) -> bool:
    """Whether a class or function is neither Python's nor an installed library's."""
    if not isinstance(getattr(code, "__module__", None), str):
        return False
    found = inspect.getmodule(code)
    path = getattr(found, "__file__", None) if found else None
    return code.__module__ != "builtins" and not (path or "").startswith(LIBRARIES)


def name_of(code: Any) -> str:
    """Qualified name of a class or function, with its module."""
    return f"{code.__module__}.{code.__qualname__}"


def names_read(code: types.CodeType) -> set[str]:
    """Global variables read by code and by the functions nested in it."""
    found = {step.argval for step in dis.get_instructions(code) if step.opname in READS}
    inner = (each for each in code.co_consts if isinstance(each, types.CodeType))
    return found.union(*map(names_read, inner))


def closed_over(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Values that a function closes over."""
    names, cells = function.__code__.co_freevars, function.__closure__ or ()
    for name, cell in zip(names, cells, strict=True):
        for value in Cell().items(cell):
            yield f" by its variable {name!r}", value
