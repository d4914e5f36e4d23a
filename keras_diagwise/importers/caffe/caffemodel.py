"""The `.caffemodel` format: the few protobuf fields that hold weights."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator

import keras
import numpy as np

from keras_diagwise.importers import files
from keras_diagwise.importers.weights import Weight

VARINT, BYTES = 0, 2
FIXED_SIZES = {1: 8, 5: 4}
"""Wire types: a varint, bytes, and those of a fixed size in bytes."""

LAYERS = {2: (4, 6), 100: (1, 7)}
"""A network's layer fields, Caffe's first and current ones, each with the layer's
fields for name and blobs."""

DATA, SHAPE, DIMENSIONS = 5, 7, 1
OLD_DIMENSIONS = 1, 2, 3, 4
"""Fields of a blob and its shape; old blobs hold the dimensions themselves."""

MAX_FIELDS, MAX_AXES, MAX_LETTERS = 100_000, 8, 512

Span = tuple[int, int]
EMPTY: Span = (0, 0)

Layers = dict[str, tuple[str, list[Weight]]]
"""Type of each layer and the weights in its blobs, by name. A last weight without a
variable is a factor that divides the others."""


class Reader(files.Reader):
    """A protobuf reader with a limit on the number of fields."""

    fields_left = MAX_FIELDS

    def varint(self, at: int, stop: int) -> tuple[int, int]:
        """A varint, and the byte after it."""
        value, stop = 0, min(at + 10, stop)
        for n, byte in enumerate(self.bytes(at, stop)):
            value |= (byte & 0x7F) << 7 * n
            if byte < 0x80:
                return value, at + n + 1
        raise self.error(stop, "a number should end here")

    def message(self, at: int, stop: int) -> dict[int, list[Span]]:
        """Fields of a message: begin and end of the contents of each."""
        found = defaultdict(list)
        while at < stop:
            start, self.fields_left = at, self.fields_left - 1
            if self.fields_left < 0:
                raise self.error(at, f"there are more than {MAX_FIELDS:,} fields")
            key, at = self.varint(at, stop)
            field, wire = key >> 3, key & 7
            if wire == BYTES:
                size, at = self.varint(at, stop)
            elif wire == VARINT:
                size = self.varint(at, stop)[1] - at
            elif wire in FIXED_SIZES:
                size = FIXED_SIZES[wire]
            else:
                raise self.error(start, f"no field has the wire type {wire}")
            if size > stop - at or field == 0:
                reason = f"field {field} of {size:,} bytes is not whole"
                raise self.error(start, reason)
            found[field].append((at, at + size))
            at += size
        return found

    def shape(self, blob: dict[int, list[Span]]) -> tuple[int, ...]:
        """Shape of a blob, whose dimensions are packed or one field each."""
        spans = [span for axis in OLD_DIMENSIONS for span in blob[axis]]
        if blob[SHAPE]:
            spans = self.message(*blob[SHAPE][-1])[DIMENSIONS]
        found: list[int] = []
        for at, stop in spans:
            while at < stop and len(found) < MAX_AXES:
                dimension, at = self.varint(at, stop)
                found.append(dimension)
        return tuple(found)

    def values(self, layer: str, span: Span, weight: Weight) -> np.ndarray:
        """Values of a weight, from a layer's blob.

        Raises:
            ValueError: if the blob lacks them, has another shape, or a value is
                invalid.
        """
        blob = self.message(*span)
        shape, (start, stop) = self.shape(blob), [EMPTY, *blob[DATA]][-1]
        is_same = without_ones(shape) == without_ones(weight.shape)
        if not is_same or stop - start != 4 * weight.size:
            received = f"{stop - start} bytes of shape {shape}"
            raise self.error(start, weight.unlike(f"a blob of layer {layer}", received))
        return weight.read(self.path, start)


def without_ones(shape: Iterable[int]) -> list[int]:
    """A shape without the leading axes of 1 that old files add."""
    return list(itertools.dropwhile(lambda size: size == 1, shape))


def read(path: files.Name, layers: Layers) -> Iterator[tuple[Weight, np.ndarray]]:
    """Each weight and its values, divided by the layer's factor.

    Raises:
        ValueError: if the file is not protobuf, or a blob does not fit its layer.
    """
    reader = Reader(path)
    found: dict[str, list[Span]] = {}
    network = reader.message(0, reader.size)
    for number, (name_field, blobs_field) in LAYERS.items():
        for span in network[number]:
            layer = reader.message(*span)
            start, stop = [EMPTY, *layer[name_field]][-1]
            letters = reader.bytes(start, min(stop, start + MAX_LETTERS))
            if layer[blobs_field]:
                found[letters.decode("utf-8", "replace")] = layer[blobs_field]
    for name, (_, weights) in layers.items():
        blobs = itertools.chain(found.get(name, []), itertools.repeat(EMPTY))
        values = list(map(reader.values, itertools.repeat(name), blobs, weights))
        yield from zip(weights, divided(values, weights), strict=True)


def divided(values: list[np.ndarray], weights: list[Weight]) -> list[np.ndarray]:
    """Values of a layer divided by its factor; zeros for a factor of 0, as in Caffe."""
    if weights[-1].variable:
        return values
    factor = values[-1]
    return [each / factor if factor.any() else np.zeros_like(each) for each in values]


def to_bytes(layers: Layers, model: keras.Model) -> bytes:
    """Bytes of a caffemodel with the layers' blobs, from a model's values."""
    parts = []
    for name, (kind, weights) in layers.items():
        layer = field(1, name.encode()) + field(2, kind.encode())
        for weight in weights:
            shape = field(DIMENSIONS, b"".join(map(varint, weight.shape)))
            values = weight.take(model).tobytes()
            layer += field(7, field(SHAPE, shape) + field(DATA, values))
        parts.append(field(100, layer))
    return b"".join(parts)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def varint(number: int) -> bytes:
    if number < 0x80:
        return bytes([number])
    return bytes([number & 0x7F | 0x80]) + varint(number >> 7)
