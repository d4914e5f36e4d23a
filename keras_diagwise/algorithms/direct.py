"""`direct`: the sum over kernel taps of shifted input × weight, for the backend's
compiler to fuse."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from keras import ops

from keras_diagwise.algorithms import phases, rows
from keras_diagwise.algorithms.algorithm import Algorithm, Work
from keras_diagwise.algorithms.terms import (
    accumulated,
    accumulator,
    multiply_and_reduce,
    multiply_forward,
    pad,
    sum_of_terms,
    taps,
    window,
)

MOST_TERMS = 128
"""Taps × channels in a group that are written out one by one: beyond it the
program, and the time to compile it, grow out of proportion."""


LOWERINGS = ("taps", "rows")


@dataclasses.dataclass(frozen=True)
class Direct(Algorithm):
    """The convolution from its definition, a term for each tap.

    In float16 and bfloat16 the terms are summed in float32.

    Attributes:
        lowering: how the kernel gradient runs: `"taps"` reduces the whole tensor
            for each tap, `"rows"` blocks of its rows for many taps at once. The
            other passes are the same in both.
    """

    lowering: str = "taps"

    name = "direct"
    revision = 1

    def __post_init__(self):
        if self.lowering not in LOWERINGS:
            raise ValueError(
                f"`lowering` must be one of {', '.join(LOWERINGS)}. "
                f"Received: lowering={self.lowering!r}"
            )

    def forward(self, problem, inputs, kernel):
        padded = pad(accumulated(inputs, problem), problem, problem.padding_pairs)
        kernel = accumulated(kernel, problem)
        outputs = sum_of_terms(
            multiply_forward(
                problem,
                window(padded, problem, tap, problem.output_spatial_shape),
                kernel[tap],
            )
            for tap in taps(problem)
        )
        return ops.cast(outputs, problem.dtype)

    def input_gradient(self, problem, kernel, output_gradient):
        inputs_gradient = phases.input_gradient(
            problem,
            accumulated(kernel, problem),
            accumulated(output_gradient, problem),
        )
        return ops.cast(inputs_gradient, problem.dtype)

    def kernel_gradient(self, problem, inputs, output_gradient):
        if self.lowering == "rows":
            if problem.data_format == "channels_first":
                inputs = ops.moveaxis(inputs, 1, -1)
                output_gradient = ops.moveaxis(output_gradient, 1, -1)
                problem = dataclasses.replace(problem, data_format="channels_last")
            dtype = accumulator(problem)
            kernel = rows.kernel_gradient(problem, inputs, output_gradient, dtype)
        else:
            padded = pad(accumulated(inputs, problem), problem, problem.padding_pairs)
            gradient = accumulated(output_gradient, problem)
            sizes = problem.output_spatial_shape
            kernel = ops.stack(
                [
                    multiply_and_reduce(
                        problem, window(padded, problem, tap, sizes), gradient
                    )
                    for tap in taps(problem)
                ]
            )
        return ops.cast(ops.reshape(kernel, problem.kernel_shape), problem.dtype)

    def refusal(self, problem):
        if not problem.has_static_spatial_shape:
            return "the spatial shape is not known"
        if 0 in problem.output_spatial_shape:
            return "the output is empty"
        terms = problem.taps * problem.channels_per_group
        if terms > MOST_TERMS:
            return f"{terms} terms are more than {MOST_TERMS}"
        if self.lowering == "rows" and (problem.rank > 2 or not problem.is_depthwise):
            return "blocks of rows are for depthwise convolutions of rank 1 and 2"
        return None

    @property
    def family(self):
        return f"{self.name}:{self.lowering}"

    def work(self, problem):
        return Work(problem.flops, problem.least_bytes, problem.taps)

    @classmethod
    def parse(cls, parameters):
        if len(parameters) > 1:
            raise ValueError(
                "`direct` takes a lowering only, such as 'direct:rows'. "
                f"Received: {':'.join(['direct', *parameters])!r}"
            )
        return cls(*parameters)

    @classmethod
    def candidates(cls, problem, pass_name) -> Iterator[Direct]:
        for lowering in LOWERINGS if pass_name == "kernel_gradient" else LOWERINGS[:1]:
            yield cls(lowering)

    def __str__(self):
        if self.lowering == LOWERINGS[0]:
            return self.name
        return f"{self.name}:{self.lowering}"
