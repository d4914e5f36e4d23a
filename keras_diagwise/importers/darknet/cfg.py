"""A `.cfg` file: sections with options, each with its line for errors."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable

from keras_diagwise.importers import files
from keras_diagwise.importers.graph import MAX_VALUES, short

MAX_BYTES = 2**20

TRAINING_ONLY = {
    *("stopbackward", "onlyforward", "dont_update", "burnin_update", "train_only_bn"),
    *("learning_rate", "clip", "grad_centr", "assisted_excitation", "noloss"),
    *("stream", "wait_stream"),
}
"""Options that change no output."""
OFF = ("", "none")


@dataclasses.dataclass
class Section:
    """A section and those of its options, with their lines, that were not read yet."""

    cfg: files.Name
    line: int
    name: str
    options: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.cfg}, line {self.line}, [{short(self.name)}]"

    def error(self, reason: str, received: object, line: int = 0) -> ValueError:
        place = dataclasses.replace(self, line=line or self.line).place
        return ValueError(f"{place}: {reason}. Received: {short(received)}")

    def text(self, option: str, default: str) -> str:
        return self.options.pop(option, (0, default))[1]

    def number(self, option, default, least=0, most=MAX_VALUES, kind: Callable = int):
        """An option that is an `int` or `float`."""
        line, text = self.options.pop(option, (0, str(default)))
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            what = "an integer" if kind is int else "a number"
            reason = f"`{option}` must be {what} from {least} to {most}"
            raise self.error(reason, f"{option}={text}", line)
        return value

    def strides(self) -> tuple[int, int]:
        both = self.number("stride", 1, 1)
        return self.number("stride_y", both, 1), self.number("stride_x", both, 1)

    def layers(self, option: str, own: int) -> list[int]:
        """Layers before layer `own`, by their place or how far they are behind it."""
        line, text = self.options.pop(option, (0, ""))
        words = text.removesuffix(",").split(",")
        places = [int(n) for n in words if re.fullmatch(r"[+-]?\d{1,9}", n, re.ASCII)]
        places = [place + own if place < 0 else place for place in places]
        if len(places) < len(words) or not all(0 <= place < own for place in places):
            reason = f"`{option}` must be numbers of layers before this, which is {own}"
            raise self.error(reason, f"{option}={text}", line)
        return places

    def check_options(self) -> None:
        """Refuses an option that nothing has read, unless it is off."""
        for option, (line, text) in self.options.items():
            if option not in TRAINING_ONLY and text.strip("0.") not in OFF:
                reason = "an option that is not supported must be 0 or left out"
                raise self.error(reason, f"{option}={text}", line)


def sections_of(cfg: files.Name) -> list[Section]:
    """All sections; of an option that stands twice Darknet takes the first."""
    sections: list[Section] = []
    lines = files.text_of(cfg, "cfg", MAX_BYTES).splitlines()
    for number, line in enumerate(lines, 1):
        line = "".join(line.partition("#")[0].split())
        option, equals, value = line.partition("=")
        if line.startswith("["):
            sections.append(Section(cfg, number, line.strip("[]")))
        elif equals and sections:
            sections[-1].options.setdefault(option, (number, value))
        elif line and not line.startswith(";"):
            raise ValueError(
                f"{cfg}, line {number}: a line must be a [section], or an option=value "
                f"in one. Received: {short(line)}"
            )
    return sections
