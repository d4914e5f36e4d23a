"""A `.prototxt`: messages in protobuf's text format, each value with its line."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

from keras_diagwise.importers import files
from keras_diagwise.importers.graph import MAX_VALUES, short

MAX_BYTES = 2**20
MAX_DEPTH = 16
MAX_TOKENS = 100_000

TOKEN = re.compile(
    r"(?:\s+|#[^\n]*|[,;]+)*+"
    r"(?:(?P<word>[\w.+-]+)"
    r"|(?P<text>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')"
    r"|(?P<mark>[:{}<>])|(?P<other>.)|$)"
)
"""The next word, text or mark, what is none of them, or the end; behind spaces."""
HINTS = {
    *("name", "input", "bottom", "top", "param", "engine"),
    *("weight_filler", "bias_filler", "filler", "force_backward", "debug_info"),
    *("blobs_lr", "weight_decay", "loss_weight", "propagate_down", "state", "level"),
}
"""Fields that change no output, or that are read for all layers."""
OFF = {"", "0", "false"}


@dataclasses.dataclass
class Message:
    """A message: its fields' values, texts or messages, until they are read.

    Attributes:
        path: of the file.
        line: where it begins.
        what: what an error calls it.
        fields: by name, what it has of each, with the lines.
    """

    path: files.Name
    line: int
    what: str = ""
    fields: dict[str, list[tuple[int, str | Message]]] = dataclasses.field(
        default_factory=dict
    )

    @property
    def place(self) -> str:
        return f"{self.path}, line {self.line}{', ' * bool(self.what)}{self.what}"

    def error(self, reason: str, received: object) -> ValueError:
        return ValueError(f"{self.place}: {reason}. Received: {short(received)}")

    def texts(self, name: str) -> list[str]:
        return [each for _, each in self.fields.get(name, []) if isinstance(each, str)]

    def text(self, name: str, default: str, choices: Sequence[str] = ()) -> str:
        value = (self.texts(name) or [default])[-1]
        self.fields.pop(name, None)
        if choices and value not in choices:
            raise self.error(f"`{name}` must be {' or '.join(choices)}", value)
        return value

    def flag(self, name: str, default: bool) -> bool:
        return self.text(name, str(default).lower()) in ("true", "1")

    def number(self, name: str, default, least=0, most=MAX_VALUES, kind=int):
        return self.numbers(name, [default], least, most, kind)[-1]

    def numbers(self, name: str, default: list, least=0, most=MAX_VALUES, kind=int):
        """All values of a field, or else the default."""
        texts = self.texts(name)
        self.fields.pop(name, None)
        try:
            values = [kind(each) for each in texts] or default
        except ValueError:
            values = [math.nan]
        if not all(least <= value <= most for value in values):
            raise self.error(
                f"`{name}` must be {'integers' if kind is int else 'numbers'} from "
                f"{least} to {most}",
                ", ".join(texts),
            )
        return values

    def pair(self, name: str, default: int, least: int) -> tuple[int, int]:
        """Height and width: `name`, once or twice, or a field for each."""
        stem = name.removesuffix("_size")
        both = self.numbers(name, [default], least)
        if len(both) > 2:
            raise self.error(f"`{name}` must have one value or two", both)
        height = self.number(f"{stem}_h", both[0], least)
        return height, self.number(f"{stem}_w", both[-1], least)

    def message(self, name: str) -> Message:
        """A message in this one; an empty one if there is none."""
        for _, each in self.fields.pop(name, []):
            if isinstance(each, Message):
                return dataclasses.replace(each, what=self.what)
        return Message(self.path, self.line, self.what)

    def messages(self, name: str) -> list[Message]:
        """All messages of a field."""
        found = self.fields.pop(name, [])
        return [each for _, each in found if isinstance(each, Message)]

    def check_fields(self) -> None:
        """Refuses a field that nothing has read, unless it is off."""
        for name in self.fields.keys() - HINTS:
            if not set(self.texts(name)) or set(self.texts(name)) - OFF:
                raise self.error("a field is not supported", name)


def read(path: files.Name) -> Message:
    """The message that a file is.

    Raises:
        ValueError: if it is none.
    """
    messages, name = [Message(path, 1)], ""
    for line, kind, token in tokens(path):
        place = f"{path}, line {line}: "
        if kind != "mark" and name:
            messages[-1].fields.setdefault(name, []).append((line, token))
            name = ""
        elif kind == "word":
            name = token
        elif token in ("{", "<") and name and len(messages) <= MAX_DEPTH:
            inner = Message(path, line)
            messages[-1].fields.setdefault(name, []).append((line, inner))
            messages.append(inner)
            name = ""
        elif token in ("}", ">") and not name and len(messages) > 1:
            messages.pop()
        elif token != ":" or not name:
            raise ValueError(
                f"{place}a message must be fields, of a name and a value or a message "
                f"each, and in {MAX_DEPTH} others at most. Received: {short(token)}"
            )
    if name or len(messages) > 1:
        raise ValueError(f"{path}, line {messages[-1].line}: this message has no end")
    return messages[0]


def tokens(path: files.Name) -> Iterator[tuple[int, str, str]]:
    """The line, kind and text of each word, text or mark of a file."""
    text = files.text_of(path, "structure", MAX_BYTES)
    line, at = 1, 0
    for _ in range(MAX_TOKENS):
        found = TOKEN.match(text, at)
        kind = found and found.lastgroup
        if found is None or kind is None:
            return
        line += text.count("\n", at, found.start(kind))
        if kind == "other":
            raise ValueError(
                f"{path}, line {line}: it must be protobuf's text format. Received: "
                f"{short(text[found.start(kind) : found.start(kind) + 80])}"
            )
        yield line, kind, found[kind][1:-1] if kind == "text" else found[kind]
        at = found.end()
    raise ValueError(f"{path}, line {line}: it has more than {MAX_TOKENS:,} words")
