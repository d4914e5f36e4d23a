"""A `.caffemodel`: protobuf's bytes, of which a few fields are read."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keras_diagwise.importers import files
from keras_diagwise.importers.options import short
from keras_diagwise.importers.weights import Weight

VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5
Fields = Mapping[tuple[int, int], tuple[str, Mapping]]
SHAPE: Fields = {(1, VARINT): ("dimension", {}), (1, BYTES): ("dimensions", {})}
BLOB: Fields = {
    (5, BYTES): ("data", {}),
    (7, BYTES): ("shape", SHAPE),
    **{(axis, VARINT): ("dimension", {}) for axis in (1, 2, 3, 4)},
}
LAYER = {(1, BYTES): ("name", {}), (7, BYTES): ("blob", BLOB)}
OLD_LAYER = {(4, BYTES): ("name", {}), (6, BYTES): ("blob", BLOB)}
NETWORK = {(100, BYTES): ("layer", LAYER), (2, BYTES): ("layer", OLD_LAYER)}
"""Fields by number and wire type: their names and, if they are messages, fields."""

MAX_FIELDS = 100_000
MAX_AXES = 8
MAX_LETTERS = 512

Message = Mapping[str, list[Any]]


Layers = dict[str, tuple[str, list[Weight]]]
"""By name, the type of a layer and the weights that its blobs hold. One that no
variable holds is a factor, which divides the others."""


class Reader:
    """A file's bytes, and how many fields may still be read from them."""

    def __init__(self, path: files.Name, view: np.ndarray):
        self.path, self.view, self.left = path, view, MAX_FIELDS

    def bytes(self, start: int, stop: int) -> bytes:
        return self.view[start:stop].tobytes()

    def error(self, byte: int, reason: str) -> ValueError:
        return ValueError(f"{self.path}, byte {byte}: {reason}")

    def varint(self, at: int, stop: int) -> tuple[int, int]:
        """A number, and where it ends."""
        value, stop = 0, min(at + 10, stop)
        for n, byte in enumerate(self.bytes(at, stop)):
            value |= (byte & 0x7F) << 7 * n
            if byte < 0x80:
                return value, at + n + 1
        raise self.error(stop, "a number should end here")

    def message(self, at: int, stop: int, fields: Mapping) -> Message:
        """The values of a message's fields: numbers, messages, or spans of bytes."""
        found: Message = defaultdict(list)
        while at < stop:
            start, self.left = at, self.left - 1
            if self.left < 0:
                raise self.error(at, f"there are more than {MAX_FIELDS:,} fields")
            key, at = self.varint(at, stop)
            field, wire = key >> 3, key & 7
            value = 0
            if wire in (VARINT, BYTES):
                value, at = self.varint(at, stop)
            sizes = {VARINT: 0, FIXED_64: 8, BYTES: value, FIXED_32: 4}
            if wire not in sizes:
                raise self.error(start, f"no field has the wire type {wire}")
            size = sizes[wire]
            if size > stop - at or field == 0:
                reason = f"field {field} of {size:,} bytes is not whole"
                raise self.error(start, reason)
            name, inner = fields.get((field, wire), ("", {}))
            if inner:
                found[name].append(self.message(at, at + size, inner))
            elif name:
                found[name].append(value if wire == VARINT else (at, at + size))
            at += size
        return found

    def shape(self, blob: Message) -> tuple[int, ...]:
        """A blob's, of which the dimensions are packed, or a field each."""
        shape = (blob["shape"] or [blob])[-1]
        found = shape["dimension"][:MAX_AXES]
        for at, stop in shape["dimensions"]:
            while at < stop and len(found) < MAX_AXES:
                dimension, at = self.varint(at, stop)
                found.append(dimension)
        return tuple(found)

    def values(self, blob: Message, weight: Weight) -> np.ndarray:
        """A weight's values.

        Raises:
            ValueError: if the blob has them not, in another shape, or not finite.
        """
        shape, (start, stop) = self.shape(blob), (blob["data"] or [(0, 0)])[-1]
        is_same = without_ones(shape) == without_ones(weight.shape)
        if not is_same or stop - start != 4 * weight.size:
            raise self.error(
                start,
                f"the {weight.place} must be float32 of shape {weight.shape}. "
                f"Received: {stop - start} bytes of shape {short(shape)}",
            )
        return weight.read(self.path, start)


def without_ones(shape: Iterable[int]) -> list[int]:
    """A shape without the axes of 1 that old files put before it."""
    return list(itertools.dropwhile(lambda size: size == 1, shape))


def read(path: files.Name, layers: Layers) -> list[tuple[Weight, np.ndarray]]:
    """Each weight and its values, divided by the layer's factor if that is not 0.

    Raises:
        ValueError: if the file is none of protobuf, or a blob not as a layer's must be.
    """
    size = files.size_of(path, "weights")
    view = np.memmap(path, "u1", "r") if size else np.empty(0, "u1")
    reader, found = Reader(path, view), {}
    for layer in reader.message(0, size, NETWORK)["layer"]:
        start, stop = (layer["name"] or [(0, 0)])[-1]
        text = reader.bytes(start, min(stop, start + MAX_LETTERS))
        if layer["blob"]:
            found[text.decode("utf-8", "replace")] = layer["blob"]
    pairs: list[tuple[Weight, np.ndarray]] = []
    for name, (_, weights) in layers.items():
        blobs = found.get(name, [])
        if len(blobs) < len(weights):
            place = weights[len(blobs)].place
            raise reader.error(
                0,
                f"there must be a blob for the {place}. Received: a layer "
                f"{short(name)!r} with {len(blobs)}",
            )
        values = list(map(reader.values, blobs, weights))
        pairs += zip(weights, divided(values, weights), strict=True)
    return pairs


def divided(values: list[np.ndarray], weights: list[Weight]) -> list[np.ndarray]:
    """A layer's values by its factor; Caffe takes 0 for sums of nothing."""
    pairs = zip(weights, values, strict=True)
    factor = next((each for weight, each in pairs if not weight.variable), None)
    if factor is None:
        return values
    return [each / factor if factor.any() else np.zeros_like(each) for each in values]


def to_bytes(layers: Layers, model: keras.Model) -> bytes:
    """A file of layers' blobs, with a model's values."""
    parts = []
    for name, (kind, weights) in layers.items():
        layer = field(1, name.encode()) + field(2, kind.encode())
        for weight in weights:
            shape = field(1, b"".join(map(varint, weight.shape)))
            values = weight.take(model).tobytes()
            layer += field(7, field(7, shape) + field(5, values))
        parts.append(field(100, layer))
    return b"".join(parts)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])
