"""Options of a layer in a file, and their declarations by the layer's kind."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from keras_diagwise._terminal import printable
from keras_diagwise.importers import files

MAX_VALUES = 2**31 - 1
"""The frameworks count in 32 bits."""

TRUE, FALSE = ("true", "True", "1"), ("false", "False", "0")
TYPES: dict[type, tuple[str, Callable[[str], Any]]] = {
    bool: ("true or false", lambda word: (FALSE + TRUE).index(word) >= len(FALSE)),
    int: ("an integer from {} to {}", int),
    float: ("a number from {} to {}", float),
    str: ("a text", str),
}
"""Description of each type for errors, and its parser."""

OFF = {"", "none", "None", "false", "False"}


class Option(NamedTuple):
    """Declaration of an option.

    Attributes:
        default: default of each value. Its type is the option's; `None` means `int`.
        least: smallest number.
        most: largest number.
        choices: allowed texts.
        values: number of values, of which one may stand for all; any number if 0.
    """

    default: Any
    least: float = 0
    most: float = MAX_VALUES
    choices: Collection[str] = ()
    values: int = 1

    def value_of(self, words: Sequence[str]) -> Any:
        """The value of some words, or the default without any.

        Raises:
            ValueError: if they are invalid, with the rule that they break.
        """
        kind, cast = TYPES[int if self.default is None else type(self.default)]
        count = self.values or len(words)
        with contextlib.suppress(ValueError):
            values = tuple(map(cast, words)) or (self.default,)
            values *= count if len(values) == 1 else 1
            if len(values) == count and all(map(self._allows, values)):
                return values[0] if self.values == 1 else values
        rule = " or ".join(self.choices) or kind.format(self.least, self.most)
        each = f"{self.values} values, each " if self.values > 1 else ""
        raise ValueError(f"must be {each}{rule}")

    def _allows(self, value: Any) -> bool:
        if isinstance(value, str):
            return not self.choices or value in self.choices
        return value is None or self.least <= value <= self.most


COUNT = Option(0, least=1)
PAIR, PADDING = Option(1, least=1, values=2), Option(0, values=2)
"""A required count (`COUNT`); pairs of numbers for two axes."""


@dataclasses.dataclass
class Source:
    """Source of a step: a section, node or message of a file.

    Attributes:
        path: path of the file.
        where: the line or node.
        what: its name in errors.
        options: place and words of each option, by name.
        messages: nested messages, by name.
    """

    path: files.Name
    where: str
    what: str = ""
    options: dict[str, tuple[str, list[str]]] = dataclasses.field(default_factory=dict)
    messages: dict[str, list[Source]] = dataclasses.field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.path}, {self.where}{', ' * bool(self.what)}{self.what}"

    def error(self, reason: str, received: object, option: str = "") -> ValueError:
        """An error with the place of the source, or of one of its options."""
        where, _ = self.options.get(option, (self.where, []))
        place = dataclasses.replace(self, where=where).place
        return ValueError(f"{place}: {reason}. Received: {short(received)}")

    def message(self, name: str) -> Source:
        """A nested message; an empty one if there is none."""
        found = self.messages.get(name) or [Source(self.path, self.where)]
        found[0].what = self.what
        return found[0]

    def words(self, option: str) -> list[str]:
        return self.options.get(option, ("", []))[1]

    def read(
        self, declared: Mapping[str, Option], ignored: Collection[str]
    ) -> SimpleNamespace:
        """Values of the declared options.

        Raises:
            ValueError: if a value is invalid, another option is neither ignored nor
                off, or a message is not ignored.
        """
        values = SimpleNamespace()
        for name, option in declared.items():
            words = self.words(name)
            try:
                setattr(values, name, option.value_of(words))
            except ValueError as error:
                received = f"{name}={', '.join(words)}"
                raise self.error(f"`{name}` {error}", received, name) from None
        for name in [*self.options, *self.messages]:
            words = self.words(name)
            is_off = name in self.options and OFF.issuperset(
                w.strip("0.") for w in words
            )
            if name not in declared and name not in ignored and not is_off:
                reason = "an option that is not supported must be 0 or left out"
                raise self.error(reason, f"{name}={', '.join(words)}", name)
        return values


def short(value: object) -> str:
    """A received value as printable text, truncated to 60 characters."""
    text = str(value)
    return printable(text if len(text) <= 60 else f"{text[:60]}…")
