"""Text of an issue that contributes decisions measured on a device."""

from __future__ import annotations

from collections.abc import Iterator

from keras_diagwise._terminal import printable
from keras_diagwise.planning.planner import shipped_document
from keras_diagwise.storage.document import Document


def text(document: Document, name: str) -> str:
    """The issue, in Markdown.

    Args:
        document: decisions measured on one device.
        name: name of the attached file.
    """
    return "\n".join(printable(line) for line in lines(document, name))


def lines(document: Document, name: str) -> Iterator[str]:
    """Lines of the issue: a title, the file, and its contents."""
    first = document.environments()[0]
    yield f"Decisions for {first.device}"
    yield ""
    yield f"Attached: {name}, as `keras-diagwise decisions contribute` wrote it."
    yield ""
    yield "| environment | problems | of them not in the package |"
    yield "| --- | ---: | ---: |"
    shipped = shipped_document()
    for environment, problems in document.entries.items():
        known = shipped.entries.get(environment, {})
        new = sum(problem not in known for problem in problems)
        yield f"| {environment} | {len(problems)} | {new} |"
