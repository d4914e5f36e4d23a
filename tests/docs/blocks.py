"""The code blocks of a page of Markdown, and what a marker says of them.

A block's marker is a comment of HTML in the line before its fence, or two lines before:

- `<!-- runs on: jax, torch -->`: on these backends only;
- `<!-- not run: REASON -->`: nowhere.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

PAGES = Path(__file__).parents[2] / "docs"

BLOCK = re.compile(
    r"^(?:<!-- (?P<marker>[^\n]*) -->\n\n?)?"
    r"(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code, where it stands, and where it runs: `None` is everywhere."""

    page: Path
    line: int
    language: str
    code: str
    backends: tuple[str, ...] | None = None


def blocks_of(page: Path, language: str) -> Iterator[Block]:
    """The blocks of a page in a language."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        if found["language"] == language:
            line = text.count("\n", 0, found.start("code")) + 1
            code = textwrap.dedent(found["code"])
            yield Block(page, line, language, code, backends_of(found["marker"]))


def backends_of(marker: str | None) -> tuple[str, ...] | None:
    """Where a block with a marker runs.

    Raises:
        ValueError: if the marker is none of those that there are.
    """
    if marker is None:
        return None
    kind, _, rest = marker.partition(": ")
    if kind == "not run" and rest:
        return ()
    if kind == "runs on" and rest:
        return tuple(each.strip() for each in rest.split(","))
    raise ValueError(f"A block's marker must say where it runs. Received: {marker!r}")


def pages() -> list[Path]:
    """All pages."""
    return sorted(PAGES.rglob("*.md"))
