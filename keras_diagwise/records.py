"""Records: what is stored as JSON, declared by the types of its fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import msgspec

from keras_diagwise._terminal import printable

Kept = TypeVar("Kept", bound="Record")

MAX_LETTERS = 1000
"""Most letters that an error quotes."""


class UnknownFieldError(ValueError):
    """A record has a field that this version of the package does not know."""


class Record(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Base of what is stored as JSON: each field has a type, with its bounds.

    Attributes:
        RULE: what values must be, as a sentence without its full stop.
    """

    RULE: ClassVar[str]

    def to_dict(self) -> dict:
        """The record as JSON types, without fields of their default values."""
        return msgspec.to_builtins(self)

    @classmethod
    def from_dict(cls: type[Kept], values: Any) -> Kept:
        """The record written by `to_dict`.

        Raises:
            UnknownFieldError: if it has a field more.
            ValueError: if `values` is not such a record. It says what is wrong, where.
        """
        try:
            record = msgspec.convert(values, cls)
        except (msgspec.ValidationError, ValueError) as error:  # one from 0.21 on
            has_more = "unknown field" in str(error)
            raise (UnknownFieldError if has_more else ValueError)(
                f"{cls.RULE}. {printable(str(error)):.{MAX_LETTERS}}. "
                f"Received: {values!r:.{MAX_LETTERS}}"
            ) from None
        try:
            record.check()
        except ValueError as error:
            raise ValueError(f"{error!s:.{MAX_LETTERS}}") from None
        return record

    @classmethod
    def from_dicts(cls: type[Kept], values: Any) -> Any:
        """An object's values as such records, for a field of a larger record.

        Raises:
            ValueError: if one is not. It names the one, which is `[...]` to msgspec.
        """
        if not isinstance(values, dict):
            return values
        records = {}
        for name, each in values.items():
            try:
                records[name] = cls.from_dict(each)
            except ValueError as error:
                raise type(error)(f"{name!r:.100}: {error}") from None
        return records

    def check(self) -> None:
        """Checks what the types of the fields do not say.

        Raises:
            ValueError: if the fields do not fit each other.
        """


def with_parts(values: Any, **parsers: Callable[[Any], Any]) -> Any:
    """A record's values, with those of some fields parsed."""
    if not isinstance(values, dict):
        return values
    parts = {n: parse(values[n]) for n, parse in parsers.items() if n in values}
    return {**values, **parts}


def one_of(*words: str) -> msgspec.Meta:
    """The bound of a text that is one of `words`."""
    return msgspec.Meta(pattern=rf"^({'|'.join(words)})\Z")
