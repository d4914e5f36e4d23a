"""Texts that come from anywhere, made harmless to a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """A text that can do nothing to a terminal: documents come from anywhere."""
    return "".join(c if c.isprintable() else "�" for c in text)


def printable_lines(text: str) -> str:
    """The same of a text of several lines."""
    return "\n".join(map(printable, text.split("\n")))
