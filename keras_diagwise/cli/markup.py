"""HTML in which every text is escaped, unless it is HTML already."""

from __future__ import annotations

import html

from keras_diagwise._terminal import printable


class Markup(str):
    """A text that is HTML: what `element` and `joined` return."""

    __slots__ = ()


VOID = ("col", "meta")


def escaped(child: object) -> Markup:
    """A child as HTML: names come from models and files, and can be anything."""
    if isinstance(child, Markup):
        return child
    return Markup(html.escape(printable(str(child))))


def joined(*children: object) -> Markup:
    """Children one after another; `None` is none."""
    return Markup("".join(escaped(each) for each in children if each is not None))


def element(name: str, *children: object, **attributes: object) -> Markup:
    """An element.

    Args:
        name: of the element.
        children: texts, which are escaped, and elements.
        attributes: by name, with an underscore for each hyphen and one behind a word
            of Python's; `True` is an attribute without a value, `None` and `False`
            are none.
    """
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{escaped(str(value))}"')
    opening = f"<{' '.join(parts)}>"
    if name in VOID:
        return Markup(opening)
    return Markup(f"{opening}{joined(*children)}</{name}>")
