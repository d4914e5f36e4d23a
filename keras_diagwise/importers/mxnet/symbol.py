"""A symbol in JSON: nodes, of which each reads earlier ones."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from keras_diagwise.importers import files
from keras_diagwise.importers.graph import short
from keras_diagwise.importers.layers import Pair

MAX_BYTES = 2**20

HINTS = {
    *("workspace", "cudnn_tune", "cudnn_off", "num_args"),
    *("grad_scale", "normalization", "smooth_alpha", "ignore_label", "use_ignore"),
}
"""Attributes that change no output."""
OFF = {"", "0", "False", "None", "()"}


class Symbol(NamedTuple):
    """A file's nodes, and which of them are its outputs."""

    path: files.Name
    nodes: list[Node]
    outputs: list[int]


class Node(NamedTuple):
    """A node of a symbol, and those of its attributes that were not read yet.

    Attributes:
        place: for errors.
        op: what it computes; of a variable `"null"`.
        name: of a variable that of the parameter.
        attributes: as they are written.
        inputs: the nodes that it reads.
    """

    place: str
    op: str
    name: str
    attributes: dict[str, str]
    inputs: list[int]

    def error(self, reason: str, received: object) -> ValueError:
        return ValueError(f"{self.place}: {reason}. Received: {short(received)}")

    def text(self, name: str, default: str, choices: Sequence[str] = ()) -> str:
        value = self.attributes.pop(name, default)
        if choices and value not in choices:
            raise self.error(f"`{name}` must be {' or '.join(choices)}", value)
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        return self.text(name, str(default)) in ("True", "1")

    def number(self, name: str, default: float) -> float:
        text = self.text(name, str(default))
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.error(f"`{name}` must be a number", text)
        return value

    def integer(self, name: str, default: int = 0) -> int:
        return self.integers(name, (default,), 1)[0]

    def pair(self, name: str, default: int, least: int = 1) -> Pair:
        height, width = self.integers(name, (default, default), least)
        return height, width

    def integers(self, name: str, default: tuple[int, ...], least: int):
        """As many integers as the default has."""
        text = self.text(name, "()")
        words = re.findall(r"[^\s,()\[\]]+", text) or list(map(str, default))
        values = tuple(int(n) for n in words if re.fullmatch(r"\d{1,9}", n, re.ASCII))
        if not len(values) == len(words) == len(default) or min(values) < least:
            what = "an integer" if len(default) == 1 else f"{len(default)} integers"
            raise self.error(f"`{name}` must be {what} of at least {least}", text)
        return values

    def check_attributes(self) -> None:
        """Refuses an attribute that nothing has read, unless it is off."""
        for name, text in self.attributes.items():
            if not name.startswith("__") and name not in HINTS and text not in OFF:
                raise self.error("an attribute is not supported", f"{name}={text}")


def read(path: files.Name) -> Symbol:
    """The symbol in a file.

    Raises:
        ValueError: if it is none.
    """
    text = files.text_of(path, "symbol", MAX_BYTES)
    try:
        contents = json.loads(text)
    except (ValueError, RecursionError) as error:
        byte = getattr(error, "pos", 0)
        raise ValueError(f"{path}, byte {byte}: it must be JSON ({error})") from None
    try:
        nodes = [node(path, i, each) for i, each in enumerate(contents["nodes"])]
        outputs = [head[0] for head in contents["heads"]]
        is_whole = outputs and all(is_one_of(each, len(nodes)) for each in outputs)
    except (LookupError, TypeError):
        is_whole = False
    if not is_whole:
        raise ValueError(
            f"{path}, byte 0: a symbol must have lists of nodes and of heads that "
            "name nodes"
        )
    return Symbol(path, nodes, outputs)


def node(path: files.Name, i: int, values: dict) -> Node:
    try:
        op, name = short(values["op"]), str(values["name"])
        written = [values.get(key) or {} for key in ("param", "attr", "attrs")]
        attributes = {str(k): str(v) for each in written for k, v in each.items()}
        inputs = [each[0] for each in values["inputs"]]
        are_first = all(each[1] == 0 for each in values["inputs"])
        is_whole = are_first and all(is_one_of(each, i) for each in inputs)
    except (LookupError, TypeError, AttributeError):
        is_whole = False
    if not is_whole:
        raise ValueError(
            f"{path}, node {i}: it must have an op, a name and inputs, which are first "
            f"outputs of nodes before it. Received: {short(values)}"
        )
    return Node(f"{path}, node {i}, {op} {short(name)}", op, name, attributes, inputs)


def is_one_of(number: object, count: int) -> bool:
    return type(number) is int and 0 <= number < count
