"""Conversion of a weight between a file and its Keras variable."""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
import numpy as np

from keras_diagwise.importers import files
from keras_diagwise.importers.options import short


class Weight(NamedTuple):
    """Place of a weight in the file and in the model.

    Attributes:
        place: its name in errors.
        layer: name of the Keras layer.
        variable: attribute of the layer; empty for a constant 1.
        shape: shape in the file.
        axes: the file's axis for each axis of Keras's variable.
    """

    place: str
    layer: str
    variable: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] = (0,)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def unlike(self, what: str, received: str) -> str:
        """Reason for an error: a part of the file does not hold this weight."""
        return (
            f"the {self.place} must be {short(what)}, float32 of shape {self.shape}. "
            f"Received: {short(received)}"
        )

    def read(self, path: files.Name, byte: int) -> np.ndarray:
        """Reads the values from a byte of a file, which must hold them all.

        Raises:
            ValueError: if a value is not finite, or a variance is negative.
        """
        values = np.fromfile(path, "<f4", self.size, offset=byte)
        wrong = self.impossible(values)
        if len(wrong):
            raise ValueError(
                f"{path}, byte {byte + 4 * wrong[0]}: the {self.place} must be finite, "
                f"and a variance not negative. Received: {values[wrong[0]]}"
            )
        return values

    def impossible(self, values: np.ndarray) -> np.ndarray:
        """Indices of invalid values."""
        least = 0 if self.variable == "moving_variance" else -math.inf
        return np.flatnonzero(~(np.isfinite(values) & (values >= least)))

    def put(self, model: keras.Model, values: np.ndarray) -> None:
        """Sets the variable from values in the file's layout.

        Raises:
            ValueError: if the format's own arithmetic has made a value invalid.
        """
        if self.variable:
            if len(wrong := self.impossible(values)):
                raise ValueError(
                    f"the {self.place}, divided by the layer's factor, must be finite, "
                    "and a variance not negative. "
                    f"Received: {values.flat[wrong[0]]}"
                )
            variable = getattr(model.get_layer(self.layer), self.variable)
            variable.assign(values.reshape(self.shape).transpose(self.axes))

    def take(self, model: keras.Model) -> np.ndarray:
        """The variable's values in the file's layout, in float32.

        Raises:
            ValueError: if the model has no such variable, or one of another shape.
        """
        if not self.variable:
            return np.ones(self.shape, "<f4")
        shape = tuple(self.shape[axis] for axis in self.axes)
        try:
            variable = getattr(model.get_layer(self.layer), self.variable)
            found = tuple(variable.shape)
        except (ValueError, AttributeError):
            found = None
        if found != shape:
            raise ValueError(
                f"the {self.place}: `model` must have a layer {self.layer!r} with a "
                f"variable {self.variable!r} of shape {shape}, as the model that was "
                f"loaded from this structure. Received: model={model.name!r} with one "
                f"of shape {found}"
            )
        values = keras.ops.convert_to_numpy(variable).astype("<f4")
        return values.transpose(np.argsort(self.axes))
