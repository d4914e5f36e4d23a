"""The interface of a kind of objects: taking their contents out, and putting them back
or elsewhere."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

from keras_diagwise.models.attributes import attributes_of, put_attributes


class Content(NamedTuple):
    """Contents of an object.

    Attributes:
        attributes: by name.
        items: everything else, in an order that its kind knows; for a dictionary,
            keys and values alternate.
    """

    attributes: dict[str, Any]
    items: list[Any]


class Kind(abc.ABC):
    """A kind of object.

    Attributes:
        is_made_of_items: whether the items are passed when an object is made; if not,
            it is made empty and filled later.
        is_immutable: whether an object can be shared if all that it holds is shared.
    """

    is_made_of_items = is_immutable = False

    def take(self, each: Any) -> Content:
        """Contents of an object."""
        return Content(attributes_of(each), self.items(each))

    def items(self, each: Any) -> list:
        """Contents of an object other than its attributes."""
        return []

    @abc.abstractmethod
    def make(self, each: Any, items: list) -> Any:
        """A new object of the class of `each`."""

    def put(self, each: Any, content: Content) -> None:
        """Replaces the contents of an object."""
        put_attributes(each, content.attributes)
        self.put_items(each, content.items)

    def put_items(self, each: Any, items: list) -> None:
        """Replaces the items of an object."""

    def labels(self, items: list) -> Iterable[str]:
        """Labels by which Python reaches each item from the object."""
        return (f"[{i}]" for i in itertools.count())
