"""The `.weights` format: a header, then the layers' values in the cfg's order."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np

from keras_diagwise.importers import files
from keras_diagwise.importers.weights import Weight


class Header(NamedTuple):
    """Header of a weights file; a model keeps it in its input's name."""

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def format(self) -> str:
        return "<3iQ" if 10 * self.major + self.minor >= 2 else "<3iI"

    @property
    def name(self) -> str:
        return "darknet_{}_{}_{}_seen_{}".format(*self)

    def to_bytes(self) -> bytes:
        return struct.pack(self.format, *self)

    @classmethod
    def read(cls, reader: files.Reader) -> Header:
        """Reads the header from a file's first 20 bytes.

        Raises:
            ValueError: if they are not a header, or that of an early layout with
                transposed matrices.
        """
        content = reader.bytes(0, 20)
        version = struct.unpack_from("<3i", content.ljust(12, b"\xff"))
        form = cls(*version).format
        has_all = len(content) >= struct.calcsize(form)
        if not has_all or not all(0 <= number < 1000 for number in version):
            raise reader.error(
                0,
                "a weights file must begin with three numbers of its version, from 0 "
                f"to 999, and the count of images seen. Received: {content.hex()}",
            )
        return cls(*struct.unpack_from(form, content))

    @classmethod
    def of(cls, model: keras.Model) -> Header:
        """Header of a loaded model; of any other, version 0.2.5 with no images seen."""
        names = " ".join(layer.name for layer in model.layers)
        found = re.search(r"\bdarknet_(\d+)_(\d+)_(\d+)_seen_(\d+)\b", names)
        return cls(*map(int, found.groups())) if found else cls()


def read(
    path: files.Name, weights: Sequence[Weight]
) -> tuple[Header, list[np.ndarray]]:
    """Header of a file, and the values of each weight.

    Raises:
        ValueError: if the file is longer or shorter, or a value is invalid.
    """
    reader = files.Reader(path)
    header = Header.read(reader)
    ends = [struct.calcsize(header.format)]
    for weight in weights:
        ends.append(ends[-1] + 4 * weight.size)
        if ends[-1] > reader.size:
            raise reader.error(
                reader.size,
                f"it ends within the {weight.place}, which takes bytes {ends[-2]} to "
                f"{ends[-1]}: it is truncated, or of another cfg",
            )
    if reader.size > ends[-1]:
        reason = "the layers' weights end here, the file at byte"
        raise reader.error(ends[-1], f"{reason} {reader.size}: it is of another cfg")
    pairs = zip(ends, weights, strict=False)
    return header, [weight.read(path, start) for start, weight in pairs]
