"""Parser of `.prototxt` files: protobuf's text format, each field with its line."""

from __future__ import annotations

import re

from keras_diagwise.importers import files
from keras_diagwise.importers.options import Source

MAX_DEPTH, MAX_FIELDS = 16, 100_000

SPACE = r"[\s,;]*(?:\#[^\n]*(?:\n|\Z)[\s,;]*)*"
FIELD = re.compile(
    rf"""(?P<space>{SPACE}) (?: (?P<end>[}}>]) | (?P<name>\w+) {SPACE}
    (?: (?: : {SPACE})? (?P<begin>[{{<]) | : {SPACE} (?: (?P<word>[\w.+-]+)
        | "(?P<text>[^"\\\n]*(?:\\.[^"\\\n]*)*)"
        | '(?P<quoted>[^'\\\n]*(?:\\.[^'\\\n]*)*)' ))
    | (?P<other>.) | \Z)""",
    re.VERBOSE,
)
"""A field with a value, the begin or end of a message, or anything else. Unambiguous,
so that matching takes linear time."""


def read(path: files.Name) -> Source:
    """Parses a file as one message.

    Raises:
        ValueError: if it is not protobuf's text format.
    """
    text = files.text_of(path, "structure")
    messages, line = [Source(path, "line 1")], 1
    for count, found in enumerate(FIELD.finditer(text)):
        line += found["space"].count("\n")
        where, last = f"line {line}", messages[-1]
        kind = "other" if count > MAX_FIELDS else str(found.lastgroup)
        if kind == "begin" and len(messages) <= MAX_DEPTH:
            messages.append(Source(path, where))
            last.messages.setdefault(found["name"], []).append(messages[-1])
        elif kind == "end" and len(messages) > 1:
            messages.pop()
        elif kind in ("word", "text", "quoted"):
            last.options.setdefault(found["name"], (where, []))[1].append(found[kind])
        elif kind != "space":
            raise Source(path, where).error(
                f"it must be protobuf's text format, of {MAX_FIELDS:,} fields and in "
                f"{MAX_DEPTH} messages at most",
                text[found.end("space") : found.end("space") + 80],
            )
        line += text.count("\n", found.end("space"), found.end())
    if len(messages) > 1:
        raise messages[-1].error("this message has no end", text[-80:])
    return messages[0]
