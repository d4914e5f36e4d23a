"""Cost model of a launch on a GPU: bytes, instructions, wavefronts of L1.

The time of a launch is the longest of the three, plus the time between two kernels. The
instructions are estimated from its constants by coefficients that `tuning/gpu_costs.py`
has fitted to machine code; none of it was timed on a GPU.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from keras_diagwise.algorithms.algorithm import Device
from keras_diagwise.algorithms.triton.launch import Launch
from keras_diagwise.backends.triton import WARPS
from keras_diagwise.problem import BYTES_PER_ELEMENT, Problem

SECONDS_BETWEEN_KERNELS = 2.5e-6
"""From the end of a kernel to the end of an empty one after it."""

SCHEDULERS = 4
"""Per multiprocessor. Each issues one warp instruction per cycle (CUDA C Programming
Guide, compute capabilities 8.0 to 12.0)."""

WAVEFRONT_BYTES = 128
"""Most bytes that the L1 cache of a multiprocessor moves in a cycle."""

CLOCKS = {(8, 0): 1.41e9, (8, 6): 1.695e9, (8, 9): 2.04e9}
CLOCK = 1.755e9
"""Maximum clocks in hertz, by compute capability: A100, A10 and L4, and H100 (PCIe),
which stands for all others (NVIDIA's data sheets)."""


class Fit(NamedTuple):
    """Instructions of a thread besides its multiplications, fitted to machine code.

    Attributes:
        start: per program, or per tile of the kernel gradient: its position.
        load: per load: its address and bounds check.
        word: per loaded register: the zero that it holds out of bounds.
        store: per store.
        conversion: per element converted from or to float32.
        end: per program of the kernel gradient, besides its tiles.
        total: per sum of the kernel gradient: over lanes and warps, and its store.
    """

    start: float
    load: float
    word: float
    store: float
    conversion: float
    end: float = 0.0
    total: float = 0.0


FITS = {
    "forward": Fit(150.09, 6.91, 0.02, 6.41, 1.33),
    "input_gradient": Fit(222.23, 3.96, 0.69, 0.01, 1.24),
    "kernel_gradient": Fit(100.61, 5.77, 0.27, 0.0, 1.49, 178.54, 10.87),
}
"""Between 0.72 and 1.16 of the counts read, with a mean error of 0.04 to 0.08, and as
close for the held-out half of the programs (tuning/results/gpu-costs.json)."""


class Counts(NamedTuple):
    """The work of a thread in a program, or for a tile in the kernel gradient.

    Attributes:
        products: multiplications, each with its addition.
        loads: loads, of one address each.
        loaded: elements loaded.
        stores: stores, of one address each.
        stored: elements stored.
    """

    products: int
    loads: int
    loaded: int
    stores: int = 0
    stored: int = 0


@functools.lru_cache(maxsize=4096)
def counts_of(kernel: str, constants: tuple[tuple[str, Any], ...]) -> Counts:
    """The work of a thread of a kernel."""
    count = {
        "forward": of_forward,
        "input_gradient": of_input_gradient,
        "kernel_gradient": of_kernel_gradient,
    }[kernel]
    return count(dict(constants))


def of_forward(c: Mapping[str, Any]) -> Counts:
    taps = c["KERNEL_ACROSS"] * c["KERNEL_ALONG"]
    pixels = c["KERNEL_ACROSS"] * len(columns(c, c["KERNEL_ALONG"]))
    return Counts(
        products=taps * c["UNROLL"] * c["VECTOR"],
        loads=pixels * apart(c) + taps,
        loaded=(pixels + taps) * c["VECTOR"],
        stores=c["UNROLL"],
        stored=c["UNROLL"] * c["VECTOR"],
    )


def of_input_gradient(c: Mapping[str, Any]) -> Counts:
    rows = rows_met(c)
    met = columns_met(c)
    across = sum(len(bands) for bands in rows)
    weights = sum(map(bool, rows)) * len({tap for _, tap, _ in met})
    loads = across * len({column for *_, column in met}) + weights
    results = c["STRIDE_ACROSS"] * c["UNROLL"]
    return Counts(
        products=across * len(met) * c["VECTOR"] * c["MULTIPLIER"],
        loads=loads * apart(c) * c["MULTIPLIER"],
        loaded=loads * c["VECTOR"] * c["MULTIPLIER"],
        stores=results,
        stored=results * c["VECTOR"],
    )


def of_kernel_gradient(c: Mapping[str, Any]) -> Counts:
    pixels = c["TAPS_ACROSS"] * len(columns(c, c["TAPS_ALONG"]))
    return Counts(
        products=sums(c) * c["UNROLL"],
        loads=pixels * apart(c) + c["UNROLL"],
        loaded=(pixels + c["UNROLL"]) * c["VECTOR"],
    )


def sums(c: Mapping[str, Any]) -> int:
    """Number of sums of a thread of the kernel gradient."""
    return c["TAPS_ACROSS"] * c["TAPS_ALONG"] * c["VECTOR"]


def columns(c: Mapping[str, Any], taps: int) -> set[int]:
    """The columns that neighbouring outputs read."""
    return {
        u * c["STRIDE_ALONG"] + j * c["DILATION_ALONG"]
        for u in range(c["UNROLL"])
        for j in range(taps)
    }


def columns_met(c: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """Neighbour, tap and column of the output for each product of an input gradient in
    one row."""
    found = [
        (u, j, u + c["PHASE_ALONG"] - j * c["DILATION_ALONG"])
        for u in range(c["UNROLL"])
        for j in range(c["KERNEL_ALONG"])
    ]
    stride = c["STRIDE_ALONG"]
    return [(u, j, n // stride) for u, j, n in found if n % stride == 0]


def rows_met(c: Mapping[str, Any]) -> list[list[int]]:
    """For each row of the kernel, the bands of the input that it reaches."""
    stride = c["STRIDE_ACROSS"]
    rows = c["KERNEL_ACROSS"]
    if c["LOOPED"]:
        rows = -(-rows // stride) * stride
    shift, dilation = c["PHASE_ACROSS"], c["DILATION_ACROSS"]
    return [
        [v for v in range(stride) if (v + shift - i * dilation) % stride == 0]
        for i in range(rows)
    ]


def apart(c: Mapping[str, Any]) -> int:
    """Loads needed for a vector of channels, more than one if filters share them."""
    return c["VECTOR"] if c["MULTIPLIER"] > 1 else 1


class Share(NamedTuple):
    """The work of the multiprocessor that runs the most programs.

    Attributes:
        instructions: warp instructions.
        wavefronts: wavefronts of its L1 cache.
    """

    instructions: float
    wavefronts: float


def largest_share(how: Launch, dtype: str, multiprocessors: int) -> Share:
    """The work of the multiprocessor that runs the most programs of a launch. Idle
    lanes of a tile execute like the others.

    Args:
        how: the launch.
        dtype: dtype of its operands.
        multiprocessors: number of multiprocessors of the device.
    """
    counts = counts_of(how.kernel, how.constants)
    executed = instructions(how, dtype)
    moved = bytes_of(counts.loaded + counts.stored, counts.loads + counts.stores, dtype)
    warps = WARPS * -(-how.programs // multiprocessors)
    wavefronts = tiles_of(how) * 32 * moved / WAVEFRONT_BYTES
    return Share(warps * executed, warps * wavefronts)


def instructions(how: Launch, dtype: str) -> float:
    """Instructions that a thread of a launch executes."""
    fit, counts = FITS[how.kernel], counts_of(how.kernel, how.constants)
    once = of_counts(counts, fit, dtype)
    if how.kernel != "kernel_gradient":
        return once
    return tiles_of(how) * once + fit.end + fit.total * sums(dict(how.constants))


def of_counts(counts: Counts, fit: Fit, dtype: str) -> float:
    """Instructions of a thread, from its counts."""
    size = BYTES_PER_ELEMENT[dtype]
    converted = (counts.loaded + counts.stored) * (size < 4)
    return (
        fit.start
        + counts.products
        + fit.load * counts.loads
        + fit.word * max(counts.loads, counts.loaded * size / 4)
        + fit.store * counts.stores
        + fit.conversion * converted
    )


def bytes_of(elements: int, accesses: int, dtype: str) -> int:
    """Bytes of the L1 cache that a thread's accesses take, at least a wavefront for the
    32 threads of a warp."""
    return max(elements * BYTES_PER_ELEMENT[dtype], accesses * WAVEFRONT_BYTES // 32)


def tiles_of(how: Launch) -> int:
    """Number of tiles of a program."""
    return how.sizes[-1] if how.kernel == "kernel_gradient" else 1


def seconds(problem: Problem, how: Launch, device: Device) -> float:
    """The predicted time of a launch, see `Algorithm.predicted_seconds`.

    Args:
        problem: the problem, with a batch.
        how: the launch of one of its passes.
        device: the GPU.
    """
    share = largest_share(how, problem.dtype, device.multiprocessors)
    clock = CLOCKS.get(device.capability, CLOCK)
    moved, kernels = problem.least_bytes, 1
    if how.kernel == "kernel_gradient":  # its shares are written, read and summed
        moved, kernels = moved + 2 * 4 * math.prod(how.shape), 2
    return kernels * SECONDS_BETWEEN_KERNELS + max(
        moved / device.bytes_per_second,
        share.instructions / (SCHEDULERS * clock),
        share.wavefronts / clock,
    )
