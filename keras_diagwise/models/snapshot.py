"""Snapshot of a model's state, restored after its steps ran."""

from __future__ import annotations

import contextlib
import operator
import random
import signal
import threading
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_diagwise import backends
from keras_diagwise.models.attributes import attributes_of, put_attributes
from keras_diagwise.models.kinds import (
    Compiled,
    Content,
    Fixed,
    Method,
    Proxy,
    Reduced,
    Tensor,
)
from keras_diagwise.models.object_graph import ObjectGraph


@contextlib.contextmanager
def restored(model: keras.Model) -> Iterator[None]:
    """Restores a model on exit: variables, optimizers, metrics, seeds, attributes,
    containers, compiled functions; also after an exception or Ctrl-C. The states of the
    global random generators are restored too.

    Objects that change in place and give `pickle` no state, such as a `bytearray` or an
    iterator, keep their changes; of objects that can't be pickled the attributes are
    restored.

    Raises:
        NotRestoredError: if a part can't be restored.
    """
    state = State(model)
    try:
        yield
    finally:
        with interrupted_later():
            state.put_back()


class NotRestoredError(Exception):
    """A part of a model could not be restored; all others were."""


class State:
    """Current contents of each object in a model's graph, with copies of tensors."""

    def __init__(self, model: keras.Model):
        self._graph = ObjectGraph(model, lambda error, path: None)
        copy_of = backends.active.tensor_copier()
        self._tensors = {
            id(each): copy_of(each)
            for each in self._graph.objects
            if isinstance(each, backends.active.TENSORS)
        }
        self._arrays = {
            id(each): np.array(each, copy=True)
            for each in self._graph.objects
            if type(each) is np.ndarray
        }
        self._classes = [(each, type(each)) for each in self._graph.objects]
        # The state that an object gives `pickle` may be less than it holds.
        reduced = [
            each
            for each in self._graph.objects
            if isinstance(self._graph.contents[id(each)][0], Reduced)
        ]
        self._attributes = [
            (each, attributes_of(each))
            for each in (*reduced, *self._graph.unknown)
            if type(each).__dictoffset__
        ]
        self._random = random.getstate(), np.random.get_state()
        self._of_backend = backends.active.random_state()
        self._of_keras = backends.keras_internals.global_seed()
        self._held: dict[int, Any] = {}

    def put_back(self) -> None:
        """Restores the model.

        Raises:
            NotRestoredError: if a part of it can't be restored; all others are.
        """
        errors: list[str] = []
        steps: Any = (
            (self._put_class, self._classes),
            (self._put_tensor, self._tensors),
            (self._put_object, self._graph.objects),
            (lambda pair: put_attributes(*pair), self._attributes),
        )
        for step, parts in steps:
            for part in parts:
                try:
                    step(part)
                except Exception as error:
                    errors.append(f"{type(error).__name__}: {error}")
        random.setstate(self._random[0])
        np.random.set_state(self._random[1])
        backends.active.set_random_state(self._of_backend)
        backends.keras_internals.set_global_seed(*self._of_keras)
        if errors:
            raise NotRestoredError(
                f"{len(errors)} part(s) of the model can't be put back as they were: "
                f"{errors[0]}"
            )

    def _put_class(self, pair: tuple[Any, type]) -> None:
        each, was = pair
        if type(each) is not was:
            each.__class__ = was

    def _put_tensor(self, key: int) -> None:
        tensor = self._graph.by_id[key]
        content = self._graph.contents[key][1]
        attributes = {n: self._held_now(v) for n, v in content.attributes.items()}
        copy = self._tensors[key]
        self._held[key] = backends.active.restored_tensor(tensor, copy, attributes)

    def _put_object(self, each: Any) -> None:
        kind, content = self._graph.contents[id(each)]
        if id(each) in self._arrays:
            if not np.array_equal(each, self._arrays[id(each)]):
                each[...] = self._arrays[id(each)]
        elif isinstance(kind, Reduced):
            state, has_dict = content.items[2], type(each).__dictoffset__
            if state is not None and hasattr(each, "__setstate__") and not has_dict:
                each.__setstate__(state)
        elif not isinstance(kind, Tensor | Compiled | Method | Proxy):
            attributes = {n: self._held_now(v) for n, v in content.attributes.items()}
            items = list(map(self._held_now, content.items))
            kind.put(each, Content(attributes, items))

    def _held_now(self, part: Any) -> Any:
        """Replacement of a part: the copy of a tensor that can't be written, a new
        tuple for a tuple that holds one, else the part itself."""
        if id(part) in self._held:
            return self._held[id(part)]
        if part in self._graph and isinstance(self._graph.contents[id(part)][0], Fixed):
            kind, content = self._graph.contents[id(part)]
            items = list(map(self._held_now, content.items))
            same = all(map(operator.is_, items, content.items))
            self._held[id(part)] = part if same else kind.make(part, items)
            return self._held[id(part)]
        return part


@contextlib.contextmanager
def interrupted_later() -> Iterator[None]:
    """Defers Ctrl-C to the end of a block that must complete."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple] = []
    before = signal.getsignal(signal.SIGINT)
    if before is None:  # not set from Python
        yield
        return
    signal.signal(signal.SIGINT, lambda *arguments: received.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received:
            signal.raise_signal(signal.SIGINT)
