"""Parser of a symbol in JSON: nodes in topological order."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from keras_diagwise.importers import files
from keras_diagwise.importers.options import Source, short


class Node(NamedTuple):
    """A node of a symbol.

    Attributes:
        source: its place and attributes.
        op: its operation; `"null"` for a variable.
        name: its name; for a variable, the parameter's.
        inputs: indices of the nodes that it reads.
    """

    source: Source
    op: str
    name: str
    inputs: list[int]


def read(path: files.Name) -> tuple[list[Node], list[int]]:
    """Nodes of a symbol, and the indices of its outputs.

    Raises:
        ValueError: if the file is not a symbol.
    """
    text = files.text_of(path, "symbol")
    try:
        contents = json.loads(text)
    except (ValueError, RecursionError) as error:
        place = Source(path, f"byte {getattr(error, 'pos', 0)}")
        raise place.error("it must be JSON", error) from None
    try:
        nodes = [node(path, i, each) for i, each in enumerate(contents["nodes"])]
        outputs = [first_output(each, len(nodes)) for each in contents["heads"]]
    except (LookupError, TypeError):
        outputs = []
    if not outputs:
        reason = "a symbol must have lists of nodes and of heads that name nodes"
        raise Source(path, "byte 0").error(reason, text)
    return nodes, outputs


def node(path: files.Name, i: int, values: Any) -> Node:
    """A node from its JSON value.

    Raises:
        ValueError: if it is not a node.
    """
    source = Source(path, f"node {i}")
    try:
        op, name = short(values["op"]), str(values["name"])
        source.what = f"{op} {short(name)}"
        for written in ("param", "attr", "attrs"):
            for key, value in (values.get(written) or {}).items():
                words = re.findall(r"[^\s,()\[\]]+", str(value))
                source.options[key] = source.where, words
        return Node(source, op, name, [first_output(n, i) for n in values["inputs"]])
    except (LookupError, TypeError, AttributeError):
        reason = "it must have an op, a name and inputs, which are first outputs of"
        raise source.error(f"{reason} nodes before it", values) from None


def first_output(entry: Any, count: int) -> int:
    """Index of the node that an entry refers to, one of the first `count`."""
    if type(entry[0]) is not int or not 0 <= entry[0] < count or entry[1] != 0:
        raise LookupError
    return entry[0]
