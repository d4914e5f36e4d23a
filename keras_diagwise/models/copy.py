"""A second model, made by duplicating every object that the first is made of."""

from __future__ import annotations

import dis
import inspect
import operator
import re
import types
from typing import Any, NoReturn

import keras

from keras_diagwise import backends
from keras_diagwise.models.object_graph import (
    COMPILED,
    Cell,
    Content,
    Dictionary,
    ObjectGraph,
    Proxy,
    Reduced,
    Reference,
)

KEY_OF_NODE = re.compile(r"(\d+)(_ib-\d+)")
"""By which Keras names a node: the `id` of its operation, and its place there."""


def duplicated(model: keras.Model) -> keras.Model:
    """A model equal to another in everything, that shares nothing mutable with it.

    All that the model is made of is duplicated: layers, variables, optimizers, metrics,
    nodes, containers, arrays, functions with what they close over, and the attributes
    of each. What it shares within itself, the duplicate shares within itself. Compiled
    steps are left behind; classes, modules and what these hold are no part of it.

    Raises:
        ValueError: if a part can't be duplicated, or code that both models would run
            names a part of the first; with the path to it.
    """
    return Duplication(model).result


class Duplication:
    """A duplicate of each object in a model's graph: first all are made, then filled.

    Attributes:
        result: the duplicate of the model.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._graph = ObjectGraph(model, self._refuse)
        self._check_code()
        self._made: dict[int, Any] = {}
        self._named = {
            key: each
            for each in self._graph.objects
            for key in (id(each), *backends.active.keys_of_tensor(each))
        }
        for each in self._graph.objects:
            self._of(each)
        for each in sorted(self._graph.objects, key=self._turn):
            self._fill(each)
        self.result = self._made[id(model)]

    def _refuse(self, error: Exception, path: str) -> NoReturn:
        raise ValueError(
            f"The model {self._model.name!r} can't be duplicated, since {path} can't "
            f"be: {error}. Without `copy` the model itself is converted."
        ) from error

    def _of(self, each: Any) -> Any:
        """The duplicate of an object; itself, if models may share it."""
        if id(each) in self._made:
            return self._made[id(each)]
        if each not in self._graph:
            return self._renamed(each)
        try:
            made = self._another(each)
        except Exception as error:
            self._refuse(error, self._graph.place(each))
        return self._made.setdefault(id(each), made)

    def _another(self, each: Any) -> Any:
        kind, content = self._graph.contents[id(each)]
        if isinstance(kind, Reference) and each() in self._graph:
            return type(each)(self._of(each()), *map(self._of, content.items))
        if not kind.is_made_of_items:
            return kind.make(each, [])
        items = [self._of(item) for item in content.items]
        same = all(map(operator.is_, items, content.items)) and not content.attributes
        return each if same and kind.is_immutable else kind.make(each, items)

    def _renamed(self, each: Any) -> Any:
        """A name of an object in the graph, for its duplicate: where Keras keeps the
        `id` of an object, or a key of the backend's, in place of it."""
        if type(each) is int and each in self._named:
            return id(self._of(self._named[each]))
        if type(each) is not str:
            return each
        if each in self._named:
            return backends.active.keys_of_tensor(self._of(self._named[each]))[0]
        node = KEY_OF_NODE.fullmatch(each)
        return f"{self._renamed(int(node[1]))}{node[2]}" if node else each

    def _turn(self, each: Any) -> int:
        """Keys are hashed, maybe by what they hold; what is reduced, or a proxy, takes
        what it is given as it is then. These are filled after the others."""
        kind, _ = self._graph.contents[id(each)]
        if isinstance(kind, Reduced | Proxy):
            return 2
        return int(isinstance(kind, Dictionary) or isinstance(each, set))

    def _fill(self, each: Any) -> None:
        made = self._made[id(each)]
        if made is each:
            return
        kind, content = self._graph.contents[id(each)]
        left = COMPILED if isinstance(each, keras.Model) else ()
        attributes = {
            name: None if name in left else self._of(value)
            for name, value in content.attributes.items()
        }
        kind.put(made, Content(attributes, [self._of(item) for item in content.items]))

    def _check_code(self) -> None:
        """Refuses code that both models would run, where it names a part of one."""
        classes = {base for each in self._graph.objects for base in type(each).__mro__}
        held = [each for cls in classes for each in vars(cls).values()]
        in_modules: dict[int, set[str]] = {}
        for each in (*held, *self._graph.shared, *self._graph.objects):
            function = plain_function(each)
            if function is None:
                continue
            variables = function.__globals__
            if id(variables) not in in_modules:
                in_modules[id(variables)] = {
                    name for name, value in variables.items() if value in self._graph
                }
            named = {n: variables[n] for n in in_modules[id(variables)]}
            if named:
                read = names_read(function.__code__)
                named = {name: each for name, each in named.items() if name in read}
            if function not in self._graph:
                named.update(closed_over(function))
            for name, value in named.items():
                if value in self._graph:
                    part = self._graph.path(value)
                    error = TypeError(f"its code names {part} by its variable {name!r}")
                    self._refuse(
                        error, f"{function.__module__}.{function.__qualname__}"
                    )


def plain_function(each: Any) -> types.FunctionType | None:
    """What Python code an attribute of a class, or another object, runs."""
    each = each.fget if isinstance(each, property) else each
    each = inspect.unwrap(getattr(each, "__func__", each))
    return each if isinstance(each, types.FunctionType) else None


def names_read(code: types.CodeType) -> set[str]:
    """The global variables that code reads, and the functions within it."""
    found = {
        step.argval
        for step in dis.get_instructions(code)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    inner = (each for each in code.co_consts if isinstance(each, types.CodeType))
    return found.union(*map(names_read, inner))


def closed_over(function: types.FunctionType) -> dict[str, Any]:
    """What a function closes over, by name."""
    cells = function.__closure__ or ()
    return {
        name: value
        for name, cell in zip(function.__code__.co_freevars, cells, strict=True)
        for value in Cell().items(cell)
    }
