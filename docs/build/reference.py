"""Griffe extension for the API reference.

Docstrings have examples unindented below a line `Example:`, which griffe recognizes in
a section only. A default that is a constant is shown by its value.
"""

from __future__ import annotations

import re

import griffe

EXAMPLE = re.compile(r"^Example:\n\n((?:>>>|\.\.\.)[\s\S]*?)(?=\n\n|\Z)", re.MULTILINE)

CONSTANTS = {"AUTO": "'auto'"}


class Reference(griffe.Extension):
    """Shows examples as code, and defaults by value."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(as_code, obj.docstring.value)

    def on_function(self, *, func: griffe.Function, **kwargs) -> None:
        for parameter in func.parameters:
            default = CONSTANTS.get(str(parameter.default))
            if default:
                parameter.default = default


def as_code(example: re.Match) -> str:
    return f"```pycon\n{example[1].rstrip()}\n```"
