"""A model's state, put back after whatever its steps have done to it."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_diagwise import backends
from keras_diagwise.models.object_graph import (
    Array,
    Content,
    Method,
    ObjectGraph,
    Proxy,
    Reduced,
    Tensor,
)


@contextlib.contextmanager
def restored(model: keras.Model) -> Iterator[None]:
    """Puts back what a model is made of, as it was before: variables, optimizers,
    metrics, seeds, attributes, containers, compiled functions; also after an exception
    and Ctrl-C. So are the states of the global random generators.

    What has a state that Python can't reach stays as it is.
    """
    state = State(model)
    try:
        yield
    finally:
        with interrupted_later():
            state.put_back()


class State:
    """What each object in a model's graph holds now, and copies of its tensors."""

    def __init__(self, model: keras.Model):
        self._graph = ObjectGraph(model, lambda error, path: None)
        self._tensors = {
            id(each): kind.make(each, [None])
            for each in self._graph.objects
            for kind, _ in [self._graph.contents[id(each)]]
            if isinstance(kind, Tensor | Array)
        }
        self._classes = [(each, type(each)) for each in self._graph.objects]
        self._random = random.getstate(), np.random.get_state()
        self._of_backend = backends.active.random_state()

    def put_back(self) -> None:
        """Makes the model what it was."""
        for each, was in self._classes:
            if type(each) is not was:
                each.__class__ = was
        held = {
            id(each): backends.active.restored_tensor(each, self._tensors[id(each)])
            for each in self._graph.objects
            if isinstance(each, backends.active.TENSORS)
        }

        def put(each: Any) -> Any:
            return held.get(id(each), each)

        for each in self._graph.objects:
            kind, content = self._graph.contents[id(each)]
            if isinstance(kind, Tensor):
                for name in backends.active.TENSOR_ATTRIBUTES:
                    setattr(each, name, put(content.attributes[name]))
            elif isinstance(kind, Array):
                if each.flags.writeable:
                    each[...] = self._tensors[id(each)]
            elif isinstance(kind, Reduced):
                if content.items[2] is not None and hasattr(each, "__setstate__"):
                    each.__setstate__(content.items[2])
            elif not isinstance(kind, Method | Proxy):
                attributes = {n: put(value) for n, value in content.attributes.items()}
                kind.put(each, Content(attributes, list(map(put, content.items))))
        random.setstate(self._random[0])
        np.random.set_state(self._random[1])
        backends.active.set_random_state(self._of_backend)


@contextlib.contextmanager
def interrupted_later() -> Iterator[None]:
    """Leaves a Ctrl-C to the end of what must be done whole."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple] = []
    before = signal.signal(signal.SIGINT, lambda *arguments: received.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received and callable(before):
            before(*received[0])
