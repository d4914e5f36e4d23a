"""The graph of objects that makes up a model.

`copy` writes their contents into duplicates, `snapshot` back into the objects.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_diagwise.models.kinds import IMMUTABLE, Content, Kind, taken

COMPILED = frozenset({"train_function", "test_function", "predict_function"})
"""Attributes of a model that hold its compiled steps."""

NO_PART = COMPILED | {"_eval_epoch_iterator"}
"""Attributes that are not part of a model: compiled steps and `fit`'s own state."""


class ObjectGraph:
    """The objects that a model is made of.

    Args:
        model: the model.
        on_unknown: called with the error and the place of an object that can't be
            taken apart, which is then left out.

    Attributes:
        objects: each once, the model first.
        by_id: the objects by `id`.
        contents: kind and content of each object, by `id`.
        shared: functions that they use and that modules hold.
        unknown: objects that can't be taken apart.
    """

    def __init__(
        self, model: keras.Model, on_unknown: Callable[[Exception, str], None]
    ):
        self.objects: list[Any] = []
        self.by_id: dict[int, Any] = {}
        self.contents: dict[int, tuple[Kind, Content]] = {}
        self.shared: list[Callable] = []
        self.unknown: list[Any] = []
        self._came_from: dict[int, tuple[Any, str]] = {}
        self._name = model.name
        waiting, found = collections.deque([model]), {id(model)}
        while waiting:
            each = waiting.popleft()
            try:
                kind_and_content = taken(each)
            except Exception as error:
                on_unknown(error, self.place(each))
                self.unknown.append(each)
                continue
            if kind_and_content is None:
                self.shared.append(each)
                continue
            self.objects.append(each)
            self.by_id[id(each)] = each
            self.contents[id(each)] = kind_and_content
            for label, part in parts(each, *kind_and_content):
                if id(part) not in found and not isinstance(part, IMMUTABLE):
                    found.add(id(part))
                    self._came_from[id(part)] = each, label
                    waiting.append(part)

    def __contains__(self, each: Any) -> bool:
        return id(each) in self.contents

    def path(self, each: Any) -> str:
        """Python expression that reaches an object, starting at the model's name."""
        labels = []
        while id(each) in self._came_from:
            each, label = self._came_from[id(each)]
            labels.append(label)
        return "".join([self._name, *reversed(labels)])

    def place(self, each: Any) -> str:
        """Path of an object, with the innermost layer on it."""
        path, layer = self.path(each), each
        while id(layer) in self._came_from and not is_layer(layer):
            layer, _ = self._came_from[id(layer)]
        if layer is each or layer is self.objects[0]:
            return path
        return f"{path}, in the layer {layer.name!r},"


def is_layer(each: Any) -> bool:
    """Whether an object is a layer."""
    return isinstance(each, keras.layers.Layer)


def parts(each: Any, kind: Kind, content: Content) -> Iterator[tuple[str, Any]]:
    """The parts of an object, each with the label by which Python reaches it."""
    is_model = isinstance(each, keras.Model)
    for name, part in content.attributes.items():
        if not (is_model and name in NO_PART):
            yield f".{name}", part
    yield from zip(kind.labels(content.items), content.items, strict=False)
