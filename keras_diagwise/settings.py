"""The user's settings of a process, one declaration each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

from keras_diagwise.precision import PRECISIONS, STANDARD


class Setting:
    """A setting that can be read and assigned. Until assigned, it has the value of its
    environment variable, read on first use.

    Args:
        choices: the allowed values.
        default: its value if the variable is not set.
        variable: the environment variable.
    """

    def __init__(self, choices: Sequence[str], default: str, variable: str):
        self._choices = choices
        self._default = default
        self._variable = variable

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, settings: Settings, owner: type) -> str:
        values = vars(settings)
        if values.get(self._name) is None:
            value = os.environ.get(self._variable, self._default)
            values[self._name] = one_of(self._choices, value, self._variable)
        return values[self._name]

    def __set__(self, settings: Settings, value: str) -> None:
        value = one_of(self._choices, value, self._name)
        if vars(settings).get(self._name) != value:
            vars(settings)[self._name] = value
            settings.changed()


class Settings:
    """The settings of a dispatcher. `settings.on_miss` reads one, an assignment sets
    it, and `with settings.temporarily(on_miss="native"):` sets it temporarily.

    Args:
        changed: called whenever the value of a setting changes.
    """

    on_miss = Setting(
        ("nearest", "native", "tune", "error"), "nearest", "KERAS_DIAGWISE_ON_MISS"
    )
    """Action where no decision was measured for this exact problem here."""

    precision = Setting(PRECISIONS, STANDARD, "KERAS_DIAGWISE_PRECISION")
    """Required precision of an algorithm, see `PRECISIONS`."""

    def __init__(self, changed: Callable[[], None] = lambda: None):
        self.changed = changed

    @contextlib.contextmanager
    def temporarily(self, **values: str) -> Iterator[None]:
        """Settings that hold until the end of a `with` block.

        Raises:
            ValueError: if a value is not one of the setting's choices.
        """
        before = {name: getattr(self, name) for name in values}
        try:
            for name, value in values.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)


def one_of(choices: Sequence[str], value: str, name: str) -> str:
    """`value`, if it is one of `choices`.

    Raises:
        ValueError: if it is not.
    """
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, choices))}. "
            f"Received: {name}={value!r}"
        )
    return value
