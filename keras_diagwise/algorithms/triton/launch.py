"""The launch of a pass on a GPU: its kernel, programs, sizes and constants."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

from keras_diagwise.algorithms.triton.program import Program
from keras_diagwise.backends.triton import WARPS
from keras_diagwise.problem import BYTES_PER_ELEMENT, Problem

THREADS = 32 * WARPS

MAX_WRITTEN_OUT = 25
"""Taps beyond which a kernel loops over its rows, and the kernel gradient sums them in
groups: the registers hold no more sums of a thread's channels."""

MAX_SUMS = 96
MAX_SUMS_OF_TAPS = 100
"""Registers of a thread for sums and weights, of its 255; in the kernel gradient those
for the pixels come on top."""

MAX_IN_A_GROUP, FEW = 16, 4
"""Most taps in a group, and most neighbours of a lane where a stride leaves them little
to share or where one program sums more taps: the pixels of more neighbours would not
fit the registers (seen for sm_90 in Triton 3.6)."""

MIN_PROGRAMS = 528
ENOUGH_PROGRAMS = 2 * MIN_PROGRAMS
"""Four and eight for each of the 132 multiprocessors of an H100, on any device: the sum
in the kernel gradient must not depend on the device."""

MAX_SHARES = 0.02
"""Most bytes of a kernel gradient's shares, as a fraction of the pass's bytes, unless
`MIN_PROGRAMS` needs more."""

WIDTHS_BYTES = (32, 64, 256)
"""Contiguous bytes that neighbouring lanes read, in whole memory sectors. There are few
choices, since each makes another program."""


@dataclasses.dataclass(frozen=True)
class Launch:
    """A call of a kernel, without its operands.

    Attributes:
        kernel: its name in `kernels`.
        programs: number of programs.
        sizes: its arguments between the operands and the result.
        constants: the arguments that are compiled in.
        shape: shape of the result.
        dtype: dtype of the result.
    """

    kernel: str
    programs: int
    sizes: tuple[int, ...]
    constants: tuple[tuple[str, Any], ...]
    shape: tuple[int, ...]
    dtype: str

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        """Cached, since each launch in eager code is looked up by it."""
        return hash(dataclasses.astuple(self))


def program_of(how: Launch, dtype: str, capability: int) -> Program:
    """The program of a launch on a GPU of a compute capability.

    Args:
        how: the launch.
        dtype: dtype of its operands.
        capability: the compute capability in Triton's form: 90 for 9.0.
    """
    return Program(how.kernel, how.constants, dtype, how.dtype, capability, WARPS)


class Axis(NamedTuple):
    """A problem along one spatial axis; the defaults stand for a missing axis."""

    inputs: int = 1
    outputs: int = 1
    taps: int = 1
    stride: int = 1
    dilation: int = 1
    before: int = 0


def axes(problem: Problem) -> tuple[Axis, Axis]:
    """The axes across and along, see `kernels`."""
    found = [
        Axis(*values)
        for values in zip(
            problem.spatial_shape,
            problem.output_spatial_shape,
            problem.kernel_size,
            problem.strides,
            problem.dilation_rate,
            [before for before, _ in problem.padding_pairs],
            strict=True,
        )
    ]
    across, along = [Axis()] * (2 - problem.rank) + found
    if problem.data_format == "channels_first":
        across, along = along, across
    return across, along


@functools.lru_cache(maxsize=4096)
def launch(
    problem: Problem, pass_name: str, batch: int, unroll: int, vector_bytes: int
) -> Launch:
    """The launch of a pass.

    Args:
        problem: the problem, already checked by `refusal`.
        pass_name: one of `PASSES`.
        batch: number of images.
        unroll: most neighbouring results that a lane computes.
        vector_bytes: most bytes that a lane loads at once.
    """
    lay_out = {
        "forward": of_forward,
        "input_gradient": of_input_gradient,
        "kernel_gradient": of_kernel_gradient,
    }[pass_name]
    return lay_out(problem, batch, unroll, vector_bytes)


def of_forward(problem, batch, unroll, vector_bytes):
    across, along = axes(problem)
    unroll = fitting(unroll, along)
    vector = vector_of(problem, vector_bytes, unroll + along.taps, MAX_SUMS)
    inner, outer = ordered(problem, problem.filters, across.outputs)
    lanes, width = tile(problem, inner, vector)
    programs = -(-inner // width) * -(
        -batch * outer * -(-along.outputs // unroll) // lanes
    )
    return Launch(
        "forward",
        programs,
        sizes(problem, batch, vector, across, along),
        (
            *constants(problem, vector, unroll, lanes, width, across, along),
            ("ROWS", rows_written_out(problem, across)),
        ),
        problem.output_shape(batch),
        problem.dtype,
    )


def of_input_gradient(problem, batch, unroll, vector_bytes):
    across, along = axes(problem)
    unroll = -(-power_of_two(unroll, along.inputs) // along.stride) * along.stride
    wanted = across.stride * unroll + along.taps
    vector = vector_of(problem, vector_bytes, wanted, MAX_SUMS)
    bands = -(-across.inputs // across.stride)
    inner, outer = ordered(problem, problem.channels, bands)
    lanes, width = tile(problem, inner, vector)
    programs = -(-inner // width) * -(
        -batch * outer * -(-along.inputs // unroll) // lanes
    )
    before = [
        axis._replace(before=axis.before // axis.stride) for axis in (across, along)
    ]
    return Launch(
        "input_gradient",
        programs,
        sizes(problem, batch, vector, *before),
        (
            *constants(problem, vector, unroll, lanes, width, across, along),
            ("LOOPED", problem.taps > MAX_WRITTEN_OUT),
            ("PHASE_ACROSS", across.before % across.stride),
            ("PHASE_ALONG", along.before % along.stride),
        ),
        problem.input_shape(batch),
        problem.dtype,
    )


def of_kernel_gradient(problem, batch, unroll, vector_bytes):
    across, along = axes(problem)
    unroll = fitting(unroll, along)
    most = MAX_WRITTEN_OUT if problem.taps <= MAX_WRITTEN_OUT else MAX_IN_A_GROUP
    taps_along = evenly(along.taps, most)
    taps_across = evenly(across.taps, max(1, most // taps_along))
    summed = taps_across * taps_along
    if summed > MAX_IN_A_GROUP:
        unroll = min(unroll, FEW)
    vector = vector_of(problem, vector_bytes, summed, MAX_SUMS_OF_TAPS)
    inner, outer = ordered(problem, problem.filters, across.outputs)
    lanes, width = tile(problem, inner, vector)
    strips = -(-along.outputs // unroll)
    groups = -(-across.taps // taps_across) * -(-along.taps // taps_along)
    if problem.data_format == "channels_last":
        blocks, tiles = -(-inner // width), -(-batch * outer * strips // lanes)
    else:
        blocks, tiles = outer, -(-inner // width) * -(-batch * strips // lanes)
    tiles = max(1, tiles)
    each = -(-tiles // shares(problem, batch, groups * blocks, tiles))
    count = -(-tiles // each)
    return Launch(
        "kernel_gradient",
        groups * blocks * count,
        (*sizes(problem, batch, vector, across, along), each),
        (
            *constants(problem, vector, unroll, lanes, width, across, along),
            ("TAPS_ACROSS", taps_across),
            ("TAPS_ALONG", taps_along),
        ),
        (count, problem.taps, problem.filters),
        "float64" if problem.dtype == "float64" else "float32",
    )


def fitting(unroll: int, along: Axis) -> int:
    """Number of neighbouring outputs of a lane along an axis."""
    most = unroll if along.stride == 1 else FEW
    return power_of_two(min(unroll, most), along.outputs)


def power_of_two(unroll: int, size: int) -> int:
    """Number of neighbours along an axis of a size: no more than needed, in powers of
    two, so that different sizes need few programs."""
    return min(unroll, 2 ** (size - 1).bit_length())


def shares(problem: Problem, batch: int, programs_of_one: int, tiles: int) -> int:
    """Number of shares into which the sum over the outputs is divided."""
    whole = dataclasses.replace(problem, batch=batch)
    bytes_of_one = 4 * problem.taps * problem.filters
    wanted = min(
        -(-ENOUGH_PROGRAMS // programs_of_one),
        int(MAX_SHARES * whole.least_bytes / bytes_of_one),
    )
    return max(1, min(tiles, max(wanted, -(-MIN_PROGRAMS // programs_of_one))))


def evenly(count: int, most: int) -> int:
    """The size of the groups into which `count` is divided, at most `most` each."""
    return -(-count // -(-count // most))


def ordered(problem: Problem, channels: int, across: int) -> tuple[int, int]:
    """The sizes of a tensor's innermost axis, and of that between images and strips."""
    last = problem.data_format == "channels_last"
    return (channels, across) if last else (across, channels)


def vector_of(problem: Problem, vector_bytes: int, wanted: int, most: int) -> int:
    """Number of elements that a lane takes at once.

    Args:
        problem: the problem.
        vector_bytes: most bytes of them.
        wanted: number of such vectors to hold in registers.
        most: registers for them.
    """
    if problem.data_format == "channels_first":
        return 1
    vector = vector_bytes // BYTES_PER_ELEMENT[problem.dtype]
    while vector > 1 and (problem.channels % vector or wanted * vector > most):
        vector //= 2
    return max(1, vector)


def tile(problem: Problem, inner: int, vector: int) -> tuple[int, int]:
    """Lanes and width of a tile: the width that leaves the fewest lanes idle, and of
    those the largest."""
    elements = THREADS * vector
    size = BYTES_PER_ELEMENT[problem.dtype]
    widths = [max(vector, each // size) for each in WIDTHS_BYTES]
    width = min(widths, key=lambda n: (-(-inner // n) * n, -n))
    return elements // width, width


def rows_written_out(problem: Problem, across: Axis) -> int:
    """Number of kernel rows to unroll rather than loop over."""
    return across.taps if problem.taps <= MAX_WRITTEN_OUT else 1


def sizes(
    problem: Problem, batch: int, vector: int, across: Axis, along: Axis
) -> tuple[int, ...]:
    """The size arguments of every kernel."""
    return (
        *(batch, problem.channels // vector),
        *(across.inputs, along.inputs, across.outputs, along.outputs),
        *(across.before, along.before),
    )


def constants(problem, vector, unroll, lanes, width, across, along):
    """The constants of every kernel."""
    return (
        ("MULTIPLIER", problem.filters_per_group),
        ("KERNEL_ACROSS", across.taps),
        ("KERNEL_ALONG", along.taps),
        ("STRIDE_ACROSS", across.stride),
        ("STRIDE_ALONG", along.stride),
        ("DILATION_ACROSS", across.dilation),
        ("DILATION_ALONG", along.dilation),
        ("CHANNELS_LAST", problem.data_format == "channels_last"),
        ("VECTOR", vector),
        ("DOUBLE", problem.dtype == "float64"),
        ("UNROLL", unroll),
        ("LANES", lanes),
        ("WIDTH", width),
    )
