"""The code blocks of a page of Markdown, and what a marker says of them.

A block's marker is a comment of HTML right before its fence:

- `<!-- runs on: jax, torch -->`: on these backends only;
- `<!-- not run: REASON -->`: nowhere.

A comment that begins with a line `runs before:` holds code that makes what
the page takes for granted. It runs before the page's first block.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

PAGES = Path(__file__).parents[2] / "docs"

FLAGS = re.MULTILINE | re.DOTALL

BLOCK = re.compile(
    r"^(?:<!-- (?P<marker>[^\n]*) -->\n)?"
    r"(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    FLAGS,
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


def code_before(page: Path) -> str:
    """The code that makes what a page takes for granted."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r"^<!-- runs before:\n(.*?)^-->$", text, FLAGS)
    return found[1] if found else ""


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
