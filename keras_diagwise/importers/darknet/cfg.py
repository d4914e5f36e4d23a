"""Parser of `.cfg` files: sections with options, each with its line for errors."""

from __future__ import annotations

from keras_diagwise.importers import files
from keras_diagwise.importers.options import Source, short


def sections_of(cfg: files.Name) -> list[Source]:
    """All sections of a cfg. Of a repeated option Darknet takes the first."""
    sections: list[Source] = []
    lines = files.text_of(cfg, "cfg").splitlines()
    for number, line in enumerate(lines, 1):
        line, where = "".join(line.partition("#")[0].split()), f"line {number}"
        option, equals, value = line.partition("=")
        if line.startswith("["):
            sections.append(Source(cfg, where, f"[{short(line.strip('[]'))}]"))
        elif equals and sections:
            sections[-1].options.setdefault(option, (where, [value]))
        elif line and not line.startswith(";"):
            reason = "a line must be a [section], or an option=value in one"
            raise Source(cfg, where).error(reason, line)
    return sections
