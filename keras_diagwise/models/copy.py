"""Duplication of a model, object by object."""

from __future__ import annotations

import operator
import re
from typing import Any, NoReturn

import keras

from keras_diagwise import backends
from keras_diagwise.models.kinds import (
    Content,
    Dictionary,
    Proxy,
    Reduced,
    Reference,
    Tensor,
)
from keras_diagwise.models.object_graph import NO_PART, ObjectGraph
from keras_diagwise.models.shared_code import state_reached

KEY_OF_NODE = re.compile(r"(\d+)(_ib-\d+)")
"""Keras's key of a node: the `id` of its operation and the node's index there."""


def duplicated(model: keras.Model) -> keras.Model:
    """A duplicate of a model, equal in everything, that shares nothing mutable with it.

    Duplicates every part: layers, variables, optimizers, metrics, nodes, containers,
    arrays, functions with their closures, and the attributes of each. Sharing within
    the model is preserved. Compiled steps are left behind; classes, modules and their
    contents, and what a process has once under a name, such as a logger, are not part
    of a model.

    Raises:
        ValueError: if a part can't be duplicated, or if code that both models would
            run refers to a part of the first; with the path to it.
    """
    return Duplication(model).result


class RefusedError(ValueError):
    """A part that can't be duplicated."""


class Duplication:
    """Duplicates of a model's objects: all are made first, then filled.

    Attributes:
        result: the duplicate of the model.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._graph = ObjectGraph(model, self._refuse)
        self._check_code()
        self._copy_of_tensor = backends.active.tensor_copier()
        self._made: dict[int, Any] = {}
        self._filled: set[int] = set()
        self._named: dict[str, Any] = {}
        for each in self._graph.objects:  # a distributed variable before its parts
            for key in backends.active.keys_of_tensor(each):
                self._named.setdefault(key, each)
        self._of_optimizers = {
            id(getattr(value, "__wrapped__", value))
            for each in self._graph.objects
            if isinstance(each, keras.optimizers.Optimizer)
            for value in self._graph.contents[id(each)][1].attributes.values()
        }
        for each in self._graph.objects:
            self._of(each)
        for each in sorted(self._graph.objects, key=self._turn):
            self._fill(each)
        self.result = self._made[id(model)]

    def _refuse(self, error: Exception, path: str) -> NoReturn:
        raise RefusedError(
            f"The model {self._model.name!r} can't be duplicated, because {path} can't "
            f"be: {error}. Without `copy=True` the model itself is changed, in place."
        ) from error

    def _of(self, each: Any) -> Any:
        """The duplicate of an object, or the object itself if models may share it."""
        if each not in self._graph:
            return each
        if id(each) not in self._made:
            try:
                made = self._another(each)
            except RefusedError:  # of a part
                raise
            except Exception as error:
                self._refuse(error, self._graph.place(each))
            self._made.setdefault(id(each), made)
        return self._made[id(each)]

    def _another(self, each: Any) -> Any:
        kind, content = self._graph.contents[id(each)]
        if isinstance(kind, Tensor):
            return self._copy_of_tensor(each)
        if isinstance(kind, Reference) and kind.referent(each) in self._graph:
            referent = self._of(kind.referent(each))
            return kind.to(each, referent, list(map(self._of, content.items)))
        if not kind.is_made_of_items:
            return kind.make(each, [])
        items = [self._of(item) for item in content.items]
        same = all(map(operator.is_, items, content.items)) and not content.attributes
        return each if same and kind.is_immutable else kind.make(each, items)

    def _turn(self, each: Any) -> int:
        """Order of filling. Dictionaries and sets hash their keys, perhaps by content;
        reduced objects and proxies read their items when filled. Both come later."""
        kind, _ = self._graph.contents[id(each)]
        if isinstance(kind, Reduced | Proxy):
            return 2
        return int(isinstance(kind, Dictionary) or isinstance(each, set))

    def _fill(self, each: Any) -> None:
        """Fills a duplicate with its contents."""
        made = self._made[id(each)]
        if made is each or id(each) in self._filled:
            return
        self._filled.add(id(each))
        kind, content = self._graph.contents[id(each)]
        items = [self._of(item) for item in content.items]
        if isinstance(kind, Dictionary) or isinstance(each, set):
            step = 2 if isinstance(kind, Dictionary) else 1
            items[::step] = [self._key(key, each) for key in content.items[::step]]
        is_model = isinstance(each, keras.Model)
        attributes = {
            name: None if is_model and name in NO_PART else self._of(value)
            for name, value in content.attributes.items()
        }
        try:
            kind.put(made, Content(attributes, items))
        except Exception as error:
            self._refuse(error, self._graph.place(each))

    def _key(self, key: Any, holder: Any) -> Any:
        """A duplicate's dictionary key or set element, ready to be hashed.

        Keras stores the `id` of an object as a key, and in its optimizers a key of
        the backend.
        """
        if type(key) is int:
            named = self._graph.by_id.get(key)
            return key if named is None else id(self._of(named))
        if type(key) is str:
            if id(holder) in self._of_optimizers and key in self._named:
                return backends.active.keys_of_tensor(self._of(self._named[key]))[0]
            node = KEY_OF_NODE.fullmatch(key)
            return f"{self._key(int(node[1]), holder)}{node[2]}" if node else key
        if type(key).__hash__ is not object.__hash__:
            self._fill_within(key, set())
        return self._of(key)

    def _fill_within(self, each: Any, visited: set[int]) -> None:
        """Fills an object after its parts."""
        if each in self._graph and id(each) not in visited:
            visited.add(id(each))
            _, content = self._graph.contents[id(each)]
            for part in (*content.attributes.values(), *content.items):
                self._fill_within(part, visited)
            self._fill(each)

    def _check_code(self) -> None:
        """Refuses code that both models would run and that refers to state of one."""
        reached = state_reached(self._graph)
        if reached is not None:
            what = self._graph.path(reached.state)
            what = what if reached.state in self._graph else repr(reached.state)[:80]
            error = TypeError(f"it names {what}{reached.how}")
            self._refuse(error, reached.code)
