"""The problem: one whole convolution, and its arithmetic."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from keras_diagwise.records import Record, one_of

PASS_NAMES = {
    "forward": "forward",
    "input_gradient": "input gradient",
    "kernel_gradient": "kernel gradient",
}
"""The three passes, as an identifier and in words."""

PASSES = tuple(PASS_NAMES)

Sizes = tuple[Any, ...]
"""Ints, and `None` where a size is unknown."""

BYTES_PER_ELEMENT = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclasses.dataclass(frozen=True)
class Problem:
    """One whole convolution: the key of a decision.

    A depthwise convolution has one channel per group. A dimension that is unknown
    when the problem is made is `None`.

    Attributes:
        batch: images in the batch that one device sees, or `None`.
        spatial_shape: size of the input along each spatial axis, `None` where
            unknown.
        groups: number of feature groups.
        channels_per_group: input channels in a group.
        filters_per_group: output channels in a group (`depth_multiplier`).
        kernel_size: taps along each spatial axis.
        strides: stride along each spatial axis.
        padding: `"same"` or `"valid"`.
        dilation_rate: distance between taps along each spatial axis.
        data_format: `"channels_last"` or `"channels_first"`.
        dtype: name of the dtype that the convolution computes in.
        operation: the stock operation that computes it: `"conv"`, or `"matmul"` of a
            dense layer over pixels, which is a convolution of one group and one tap.
    """

    batch: int | None
    spatial_shape: Sizes
    groups: int
    channels_per_group: int
    filters_per_group: int
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str
    dilation_rate: tuple[int, ...]
    data_format: str
    dtype: str
    operation: str = "conv"

    @classmethod
    def of_dense_layer(
        cls,
        input_shape: Sequence[int | None],
        kernel_shape: Sequence[int],
        *,
        dtype: str = "float32",
    ) -> Problem:
        """The problem of a dense layer over pixels.

        Args:
            input_shape: `(batch, *spatial_shape, channels)`, of 1 to 3 spatial axes.
            kernel_shape: `(channels, units)`.
            dtype: name of the dtype.

        Raises:
            ValueError: if the shapes do not fit each other.
        """
        taps = (1,) * (len(input_shape) - 2)
        problem = cls.from_shapes(input_shape, (*taps, *kernel_shape), dtype=dtype)
        if problem.groups > 1:
            raise ValueError(
                f"The number of channels of `inputs` (={problem.channels}) must equal "
                f"the kernel's (={kernel_shape[0]}). Received: "
                f"inputs.shape={tuple(input_shape)}, "
                f"kernel.shape={tuple(kernel_shape)}"
            )
        return dataclasses.replace(problem, operation="matmul")

    @classmethod
    def from_shapes(
        cls,
        input_shape: Sequence[int | None],
        kernel_shape: Sequence[int],
        *,
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str = "channels_last",
        dilation_rate: int | Sequence[int] = 1,
        dtype: str = "float32",
    ) -> Problem:
        """The problem of a grouped convolution.

        Args:
            input_shape: `(batch, *spatial_shape, channels)` or, under
                `"channels_first"`, `(batch, channels, *spatial_shape)`.
            kernel_shape: `(*kernel_size, channels_per_group, filters)`.
            strides: one stride, or one for each spatial axis.
            padding: `"same"` or `"valid"`, in upper or lower case.
            data_format: `"channels_last"` or `"channels_first"`.
            dilation_rate: one dilation, or one for each spatial axis.
            dtype: name of the dtype.

        Raises:
            ValueError: if the shapes or the arguments do not fit each other.
        """
        rank = len(input_shape) - 2
        if rank not in (1, 2, 3):
            raise ValueError(
                "`inputs` must have 1 to 3 spatial axes, that is a shape of length "
                f"3, 4 or 5. Received: inputs.shape={tuple(input_shape)}"
            )
        if len(kernel_shape) != rank + 2:
            raise ValueError(
                f"`kernel` must have as many axes as `inputs` ({rank + 2}). "
                f"Received: kernel.shape={tuple(kernel_shape)}, "
                f"inputs.shape={tuple(input_shape)}"
            )
        check_data_format(data_format)
        if not isinstance(padding, str) or padding.lower() not in ("same", "valid"):
            raise ValueError(
                f"`padding` must be 'same' or 'valid'. Received: padding={padding!r}"
            )
        last = data_format == "channels_last"
        channels = input_shape[-1] if last else input_shape[1]
        spatial_shape = input_shape[1:-1] if last else input_shape[2:]
        *kernel_size, channels_per_group, filters = (int(n) for n in kernel_shape)
        if not isinstance(channels, int):
            raise ValueError(
                "The number of channels of `inputs` must be known. "
                f"Received: inputs.shape={tuple(input_shape)}"
            )
        if channels_per_group < 1 or channels % channels_per_group:
            raise ValueError(
                f"The number of channels of `inputs` (={channels}) must be divisible "
                f"by the kernel's channels in a group (={channels_per_group}). "
                f"Received: inputs.shape={tuple(input_shape)}, "
                f"kernel.shape={tuple(kernel_shape)}"
            )
        groups = channels // channels_per_group
        if groups == 0 or filters < 1 or filters % groups:
            raise ValueError(
                f"The number of filters (={filters}) must be a positive multiple of "
                f"the number of groups (={groups}). "
                f"Received: inputs.shape={tuple(input_shape)}, "
                f"kernel.shape={tuple(kernel_shape)}"
            )
        return cls(
            batch=known(input_shape[0]),
            spatial_shape=tuple(known(n) for n in spatial_shape),
            groups=groups,
            channels_per_group=channels_per_group,
            filters_per_group=filters // groups,
            kernel_size=positive_tuple(kernel_size, rank, "kernel_size"),
            strides=positive_tuple(strides, rank, "strides"),
            padding=padding.lower(),
            dilation_rate=positive_tuple(dilation_rate, rank, "dilation_rate"),
            data_format=data_format,
            dtype=dtype,
        )

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel_size)

    @property
    def channels(self) -> int:
        """Input channels."""
        return self.groups * self.channels_per_group

    @property
    def filters(self) -> int:
        """Output channels."""
        return self.groups * self.filters_per_group

    @property
    def taps(self) -> int:
        """Taps of the kernel over all spatial axes."""
        return math.prod(self.kernel_size)

    @property
    def is_depthwise(self) -> bool:
        """Whether each group holds one input channel."""
        return self.channels_per_group == 1

    @property
    def is_dense(self) -> bool:
        """Whether one group holds all of several input channels."""
        return self.groups == 1 and self.channels_per_group > 1

    @property
    def has_static_spatial_shape(self) -> bool:
        """Whether every spatial size is known."""
        return None not in self.spatial_shape

    @property
    def effective_kernel_size(self) -> tuple[int, ...]:
        """Extent of the dilated kernel along each spatial axis."""
        return tuple(
            (k - 1) * d + 1
            for k, d in zip(self.kernel_size, self.dilation_rate, strict=True)
        )

    @property
    def output_spatial_shape(self) -> Sizes:
        """Size of the output along each spatial axis."""
        extents = zip(
            self.spatial_shape, self.effective_kernel_size, self.strides, strict=True
        )
        if self.padding == "same":
            return tuple(None if n is None else -(-n // s) for n, _, s in extents)
        return tuple(
            None if n is None else max(0, (n - k) // s + 1) for n, k, s in extents
        )

    @property
    def overhangs(self) -> Sizes:
        """How far the taps of all outputs exceed the input along each spatial axis;
        negative if no tap meets the last pixels, `None` if the size is unknown."""
        sizes = zip(
            self.spatial_shape,
            self.output_spatial_shape,
            self.effective_kernel_size,
            self.strides,
            strict=True,
        )
        return tuple(
            None if n is None or out is None else (out - 1) * s + k - n
            for n, out, k, s in sizes
        )

    @property
    def padding_pairs(self) -> tuple[tuple[int, int], ...]:
        """Zeros before and after the input along each spatial axis.

        The odd zero of `"same"` goes after, as in every backend of Keras.
        """
        if self.padding == "valid":
            return ((0, 0),) * self.rank
        pairs = []
        for overhang in self.overhangs:
            if overhang is None:
                raise ValueError(
                    "The padding of 'same' needs the spatial shape. "
                    f"Received: spatial_shape={self.spatial_shape}"
                )
            total = max(overhang, 0)
            pairs.append((total // 2, total - total // 2))
        return tuple(pairs)

    @property
    def channel_axis(self) -> int:
        """Axis of the channels in inputs and outputs."""
        return self.rank + 1 if self.data_format == "channels_last" else 1

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        """Spatial axes of inputs and outputs."""
        first = 1 if self.data_format == "channels_last" else 2
        return tuple(range(first, first + self.rank))

    def input_shape(self, batch: int | None = None) -> tuple:
        """Shape of the inputs, for a batch other than the problem's if given."""
        return self._laid_out(batch, self.spatial_shape, self.channels)

    def output_shape(self, batch: int | None = None) -> tuple:
        """Shape of the outputs, for a batch other than the problem's if given."""
        return self._laid_out(batch, self.output_spatial_shape, self.filters)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """`(*kernel_size, channels_per_group, filters)`."""
        return (*self.kernel_size, self.channels_per_group, self.filters)

    def _laid_out(self, batch, spatial_shape, channels) -> tuple:
        batch = self.batch if batch is None else batch
        if self.data_format == "channels_last":
            return (batch, *spatial_shape, channels)
        return (batch, channels, *spatial_shape)

    @property
    def flops(self) -> int:
        """Useful floating point operations of one pass: a multiplication and an
        addition for each tap, output pixel, filter and channel in a group.

        It is the same for each of the three passes. An unknown dimension counts
        as 1.
        """
        pixels = math.prod(n or 1 for n in self.output_spatial_shape)
        batch = self.batch or 1
        return 2 * batch * pixels * self.taps * self.channels_per_group * self.filters

    @property
    def least_bytes(self) -> int:
        """Fewest bytes that one pass must move: inputs, outputs and kernel once.

        It is the same for each of the three passes: two of the tensors are read
        and the third is written. An unknown dimension counts as 1.
        """
        sizes = (self.input_shape(), self.output_shape(), self.kernel_shape)
        elements = sum(math.prod(n or 1 for n in shape) for shape in sizes)
        return elements * BYTES_PER_ELEMENT[self.dtype]

    def to_dict(self) -> dict:
        """The problem as JSON types, the operation left out if it is a convolution; the
        inverse of `from_dict`."""
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in dataclasses.fields(self)
            for value in [getattr(self, field.name)]
            if field.name != "operation" or value != "conv"
        }

    @classmethod
    def from_dict(cls, values: Any) -> Problem:
        """The problem written by `to_dict`.

        Raises:
            ValueError: if `values` is not a problem.
        """
        return cls(**msgspec.structs.asdict(ProblemFields.from_dict(values)))

    @functools.cached_property
    def digest(self) -> str:
        """A short hash of the problem."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        def by(numbers):
            return "×".join("?" if n is None else str(n) for n in numbers)

        if self.operation == "matmul":
            shape = by(self.input_shape())
            return f"{shape}, dense layer, units {self.filters}, {self.dtype}"
        words = [by(self.input_shape()), f"kernel {by(self.kernel_size)}"]
        if self.is_dense:
            words.append(f"{self.filters} filters")
        elif not self.is_depthwise:
            words.append(f"{self.groups} groups of {self.filters_per_group} filters")
        elif self.filters_per_group > 1:
            words.append(f"depth multiplier {self.filters_per_group}")
        if set(self.strides) != {1}:
            words.append(f"stride {by(self.strides)}")
        if set(self.dilation_rate) != {1}:
            words.append(f"dilation {by(self.dilation_rate)}")
        words += [self.padding, self.dtype]
        if self.data_format == "channels_first":
            words.append(self.data_format)
        return ", ".join(words)


MAX_SIZE = 2**31 - 1
Size = Annotated[int, Meta(ge=1, le=MAX_SIZE)]
Dimension = Annotated[int, Meta(ge=0, le=MAX_SIZE)] | None
ONE_PER_AXIS = Meta(min_length=1, max_length=3)


class ProblemFields(Record, frozen=True):
    """A problem as JSON has it."""

    RULE = "A problem must have the fields of a convolution"

    batch: Dimension
    spatial_shape: Annotated[tuple[Dimension, ...], ONE_PER_AXIS]
    groups: Size
    channels_per_group: Size
    filters_per_group: Size
    kernel_size: Annotated[tuple[Size, ...], ONE_PER_AXIS]
    strides: Annotated[tuple[Size, ...], ONE_PER_AXIS]
    padding: Annotated[str, one_of("same", "valid")]
    dilation_rate: Annotated[tuple[Size, ...], ONE_PER_AXIS]
    data_format: Annotated[str, one_of("channels_last", "channels_first")]
    dtype: Annotated[str, one_of(*BYTES_PER_ELEMENT)]
    operation: Annotated[str, one_of("matmul")] = "conv"  # the default is left out

    def check(self) -> None:
        axes = (self.kernel_size, self.strides, self.dilation_rate)
        if len({*map(len, axes), len(self.spatial_shape)}) > 1:
            raise ValueError(
                "A problem must have one size for each spatial axis. "
                f"Received: {self.to_dict()}"
            )
        if self.operation == "matmul" and not (
            set().union(*axes) == {1}
            and self.groups == 1 < self.channels_per_group
            and (self.padding, self.data_format) == ("valid", "channels_last")
        ):
            raise ValueError(
                "A problem must have the fields of a dense layer if its operation is "
                f"'matmul'. Received: {self.to_dict()}"
            )


def known(size: object) -> int | None:
    """`size` if it is an int, else `None`: a symbolic dimension is unknown."""
    return size if type(size) is int else None


DATA_FORMATS = ("channels_last", "channels_first")


def check_data_format(data_format: object) -> None:
    """Checks that `data_format` is valid.

    Raises:
        ValueError: if it is not.
    """
    if data_format not in DATA_FORMATS:
        raise ValueError(
            "`data_format` must be 'channels_last' or 'channels_first'. "
            f"Received: data_format={data_format!r}"
        )


def positive_tuple(value: int | Sequence[int], rank: int, name: str) -> tuple[int, ...]:
    """`value` as one positive int for each of `rank` axes.

    Raises:
        ValueError: if it is not one positive int, or `rank` of them.
    """
    try:
        values = (
            tuple(map(operator.index, value))
            if isinstance(value, Iterable)
            else ((operator.index(value),) * rank)
        )
    except TypeError:
        values = ()
    if len(values) != rank or not all(n > 0 for n in values):
        raise ValueError(
            f"`{name}` must be a positive int, or {rank} of them, one for each spatial "
            f"axis. Received: {name}={value!r}"
        )
    return values
