"""A `.caffemodel`: protobuf's bytes, of which a few fields are read.

Of a network, layers are field 100, and in old files field 2; of a layer, its name and
blobs; of a blob, its shape and float32 values.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_diagwise.importers import files
from keras_diagwise.importers.graph import short
from keras_diagwise.importers.weights import Weight

LAYER, OLD_LAYER = 100, 2
NAME_AND_BLOBS = {LAYER: (1, 7), OLD_LAYER: (4, 6)}
TYPE = 2
DATA, SHAPE, OLD_SHAPE, DIMENSIONS = 5, 7, (1, 2, 3, 4), 1
VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5
MAX_FIELDS = 100_000
MAX_AXES = 8


class Blob(NamedTuple):
    """A blob of a layer, and the weight that it holds.

    Attributes:
        place: for errors.
        layer: the layer's name.
        type: the layer's.
        number: among the layer's blobs.
        weight: `None` for a factor, which divides the layer's other blobs.
    """

    place: str
    layer: str
    type: str
    number: int
    weight: Weight | None

    @property
    def shape(self) -> tuple[int, ...]:
        return (1,) if self.weight is None else self.weight.shape

    def taken(self, model: keras.Model) -> np.ndarray:
        """The values that a model has for it."""
        return np.ones(1, "<f4") if self.weight is None else self.weight.take(model)


class Span(NamedTuple):
    """Where a field's bytes are, or the number that it is."""

    start: int
    stop: int
    number: int = 0


class Bytes:
    """A file's bytes and how many fields may still be read from them."""

    def __init__(self, path: files.Name, view: mmap.mmap):
        self.path, self.view, self.left = path, view, MAX_FIELDS

    def error(self, byte: int, reason: str) -> ValueError:
        return ValueError(f"{self.path}, byte {byte}: {reason}")

    def varint(self, at: int, stop: int) -> tuple[int, int]:
        """A number, and where it ends."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= stop:
                break
            byte = self.view[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise self.error(at, "a number should end here")

    def fields(self, span: Span) -> Iterator[tuple[int, int, Span]]:
        """The fields of a message: number, wire type, and where its content is."""
        at = span.start
        while at < span.stop:
            self.left -= 1
            if self.left < 0:
                raise self.error(at, f"there are more than {MAX_FIELDS:,} fields")
            start = at
            key, at = self.varint(at, span.stop)
            field, wire, number, size = key >> 3, key & 7, 0, 0
            if wire == VARINT:
                number, at = self.varint(at, span.stop)
            elif wire == BYTES:
                size, at = self.varint(at, span.stop)
            elif wire in (FIXED_32, FIXED_64):
                size = 4 if wire == FIXED_32 else 8
            else:
                raise self.error(start, f"no field has the wire type {wire}")
            if size > span.stop - at or field == 0:
                raise self.error(start, f"field {field} of {size:,} bytes is not whole")
            yield field, wire, Span(at, at + size, number)
            at += size


class Blobs:
    """The blobs of a file's layers, unread."""

    def __init__(self, source: Bytes):
        self._source = source
        self._spans: dict[str, list[Span]] = {}
        for field, wire, layer in source.fields(Span(0, len(source.view))):
            if field in NAME_AND_BLOBS and wire == BYTES:
                self._add(layer, *NAME_AND_BLOBS[field])

    def _add(self, layer: Span, name: int, blob: int) -> None:
        text, spans = b"", []
        for field, wire, span in self._source.fields(layer):
            if field == name and wire == BYTES:
                text = self._source.view[span.start : min(span.stop, span.start + 512)]
            elif field == blob and wire == BYTES:
                spans.append(span)
        if spans:
            self._spans[text.decode("utf-8", "replace")] = spans

    def values_of(self, blob: Blob) -> np.ndarray:
        """A blob's values.

        Raises:
            ValueError: if it is not there, of another shape, or not finite.
        """
        spans, path = self._spans.get(blob.layer, []), self._source.path
        if blob.number >= len(spans):
            raise ValueError(
                f"{path}, byte 0: it must have a blob {blob.number} for {blob.place}. "
                f"Received: a layer {short(blob.layer)!r} with {len(spans)}"
            )
        shape, data = self._parts(spans[blob.number])
        size, count = math.prod(blob.shape), data.stop - data.start
        if without_ones(shape) != without_ones(blob.shape) or count != 4 * size:
            raise ValueError(
                f"{path}, byte {data.start}: blob {blob.number} of {blob.place} must "
                f"be {size} values of float32 of shape {blob.shape}. Received: {count} "
                f"bytes of shape {short(shape)}"
            )
        weight = blob.weight or Weight(blob.place, "", "factor", blob.shape, (0,))
        return weight.read(path, data.start)

    def _parts(self, blob: Span) -> tuple[tuple[int, ...], Span]:
        """A blob's shape, and where its values are."""
        shape: tuple[int, ...] = ()
        old, data = [], Span(blob.start, blob.start)
        for field, wire, span in self._source.fields(blob):
            if field == DATA and wire == BYTES:
                data = span
            elif field == SHAPE and wire == BYTES:
                shape = self._dimensions(span)
            elif field in OLD_SHAPE and wire == VARINT:
                old.append(span.number)
        return shape or tuple(old), data

    def _dimensions(self, shape: Span) -> tuple[int, ...]:
        """The dimensions of a shape, whether packed or a field each."""
        found = []
        for field, wire, span in self._source.fields(shape):
            if field == DIMENSIONS and wire == VARINT:
                found.append(span.number)
            at = span.start if field == DIMENSIONS and wire == BYTES else span.stop
            while at < span.stop and len(found) < MAX_AXES:
                number, at = self._source.varint(at, span.stop)
                found.append(number)
        return tuple(found[:MAX_AXES])


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the axes of 1 that old files put before it."""
    return tuple(shape[next((i for i, n in enumerate(shape) if n != 1), len(shape)) :])


def values_of(blobs: Sequence[Blob], found: Blobs) -> list[tuple[Weight, np.ndarray]]:
    """Each weight and its values, divided by the layer's factor if that is not 0.

    Raises:
        ValueError: if a file's blob is not as a layer's must be.
    """
    values = {(blob.layer, blob.number): found.values_of(blob) for blob in blobs}
    factors = {
        blob.layer: values[blob.layer, blob.number]
        for blob in blobs
        if blob.weight is None
    }
    return [
        (blob.weight, scaled(values[blob.layer, blob.number], factors.get(blob.layer)))
        for blob in blobs
        if blob.weight is not None
    ]


def scaled(values: np.ndarray, factor: np.ndarray | None) -> np.ndarray:
    """A batch normalization's sums as means; Caffe takes 0 for sums of nothing."""
    if factor is None:
        return values
    return values / factor if factor.any() else np.zeros_like(values)


@contextlib.contextmanager
def opened(path: files.Name) -> Iterator[Blobs]:
    """The blobs of a file.

    Raises:
        ValueError: if it is none of protobuf.
    """
    if files.size_of(path, "weights") == 0:
        raise ValueError(f"{path}, byte 0: it is empty")
    with (
        Path(path).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view,
    ):
        yield Blobs(Bytes(path, view))


def to_bytes(blobs: Sequence[Blob], values: Sequence[np.ndarray]) -> bytes:
    """A file of blobs, which stand in the order of their layers."""
    layers: dict[str, list[bytes]] = {}
    for blob, each in zip(blobs, values, strict=True):
        name = field(1, blob.layer.encode()) + field(TYPE, blob.type.encode())
        parts = layers.setdefault(blob.layer, [name])
        dimensions = field(DIMENSIONS, b"".join(map(varint, blob.shape)))
        data = field(DATA, each.astype("<f4").tobytes())
        parts.append(field(NAME_AND_BLOBS[LAYER][1], field(SHAPE, dimensions) + data))
    return b"".join(field(LAYER, b"".join(parts)) for parts in layers.values())


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])
