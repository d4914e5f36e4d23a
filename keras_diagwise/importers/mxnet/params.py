"""The `.params` format: arrays, followed by their names."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping

import numpy as np

from keras_diagwise.importers import files
from keras_diagwise.importers.weights import Weight

MAGIC = 0x112
WITHOUT_STORAGE, WITH_STORAGE, WITH_NUMPY_SHAPE = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
"""First word of an array, by version; the last two add the storage type."""
CPU = (1, 0)
FLOAT32 = DENSE = 0
MAX_ARRAYS, MAX_AXES, MAX_LETTERS = 2**15, 8, 512


Arrays = Mapping[str, tuple[int, tuple[int, ...]]]
"""First byte of each array's values and its shape, by parameter name."""


class Reader(files.Reader):
    """Sequential reader of numbers, checked against the file's size."""

    byte = 0

    def wrong(self, reason: str) -> ValueError:
        return self.error(self.byte, reason)

    def skip(self, count: int) -> None:
        if count > self.size - self.byte:
            raise self.wrong(f"{count:,} bytes should follow; it ends at {self.size}")
        self.byte += count

    def take(self, form: str) -> tuple:
        start = self.byte
        self.skip(struct.calcsize(form))
        return struct.unpack(form, self.bytes(start, self.byte))

    def count(self, form: str, what: str, most: int) -> int:
        (count,) = self.take(form)
        if not 0 <= count <= most:
            raise self.wrong(f"it must have at most {most} {what}. Received: {count}")
        return count


def read(path: files.Name) -> Arrays:
    """Index of the arrays in a file; their values are not read.

    Raises:
        ValueError: if it is not a file of parameters.
    """
    reader = Reader(path)
    if reader.take("<2Q")[0] != MAGIC:
        raise reader.wrong("it is no file of MXNet's parameters")
    count = reader.count("<Q", "arrays", MAX_ARRAYS)
    arrays = [array(reader) for _ in range(count)]
    if reader.count("<Q", "names", MAX_ARRAYS) != count:
        raise reader.wrong(f"there must be as many names as arrays, {count}")
    names = [name(reader) for _ in arrays]
    return dict(zip(names, arrays, strict=True))


def array(reader: Reader) -> tuple[int, tuple[int, ...]]:
    (version,) = reader.take("<I")
    if version not in (WITHOUT_STORAGE, WITH_STORAGE, WITH_NUMPY_SHAPE):
        raise reader.wrong("an array must begin here, of MXNet 1.0 or later")
    if version != WITHOUT_STORAGE and reader.take("<i") != (DENSE,):
        raise reader.wrong("an array must be dense")
    axes = reader.count("<i", "axes", MAX_AXES)
    shape = reader.take(f"<{axes}q")
    kind = reader.take("<3i")[2]
    if kind != FLOAT32 or min(shape, default=0) < 0:
        received = f"type {kind}, shape {shape}"
        raise reader.wrong(f"an array must be of float32. Received: {received}")
    start = reader.byte
    reader.skip(4 * math.prod(shape))
    return start, shape


def name(reader: Reader) -> str:
    letters = reader.count("<Q", "letters", MAX_LETTERS)
    (text,) = reader.take(f"{letters}s")
    return text.decode("utf-8", "replace")


def values_of(
    path: files.Name, arrays: Arrays, weights: Mapping[str, Weight]
) -> Iterator[tuple[Weight, np.ndarray]]:
    """Each weight and the values of its parameter in a file.

    Raises:
        ValueError: if a parameter is missing, has another shape, or is not finite.
    """
    for name, weight in weights.items():
        byte, shape = arrays.get(name, (0, None))
        if shape != weight.shape:
            reason = weight.unlike(f"the parameter {name}", str(shape))
            raise ValueError(f"{path}, byte {byte}: {reason}")
        yield weight, weight.read(path, byte)


def to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Bytes of a file of arrays, by name with the prefix `arg:` or `aux:`."""
    parts = [struct.pack("<3Q", MAGIC, 0, len(arrays))]
    for values in arrays.values():
        form, axes = f"<I2i{values.ndim}q3i", values.shape
        head = WITH_STORAGE, DENSE, values.ndim, *axes, *CPU, FLOAT32
        parts += [struct.pack(form, *head), values.tobytes()]
    parts.append(struct.pack("<Q", len(arrays)))
    for each in arrays:
        parts += [struct.pack("<Q", len(each.encode())), each.encode()]
    return b"".join(parts)
