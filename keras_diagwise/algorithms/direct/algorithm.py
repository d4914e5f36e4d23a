"""`direct`: the sum over kernel taps of shifted input × weight, for the backend's
compiler to fuse."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

from keras import ops

from keras_diagwise import backends
from keras_diagwise.algorithms.algorithm import Algorithm, Work, check_lowering
from keras_diagwise.algorithms.dense_conv import turn_last, turned
from keras_diagwise.algorithms.direct.input_gradient import input_gradient
from keras_diagwise.algorithms.direct.kernel_gradient import by_rows, by_taps
from keras_diagwise.algorithms.direct.taps import (
    accumulated,
    accumulator,
    multiply_forward,
    padded_inputs,
    reaches_of,
    sum_over_taps,
    terms_written,
)
from keras_diagwise.problem import Problem

MAX_TERMS = 128
"""Most terms (taps × channels in a group) in a row of the kernel, which is unrolled:
beyond it the program and its compile time grow out of proportion."""


LOWERINGS = ("taps", "rows")
COMPILED = "compiled"


@dataclasses.dataclass(frozen=True)
class Direct(Algorithm):
    """The convolution by its definition, a term for each tap.

    In float16 and bfloat16 the terms are summed in float32.

    Attributes:
        lowering: how the kernel gradient runs: `"taps"` reduces the whole tensor
            for each tap, `"rows"` blocks of its rows for many taps at once, which
            suits the caches of CPUs. The other passes are the same in both.
        compiled: whether the backend's compiler fuses the terms although it does not
            compile the step around them.
    """

    lowering: str = "taps"
    compiled: bool = False

    name = "direct"
    revision = 1

    def __post_init__(self):
        check_lowering(self.lowering, LOWERINGS)

    @property
    def to_export(self):
        return dataclasses.replace(self, compiled=False)

    def forward(self, problem, inputs, kernel):
        if self.compiled:
            return compiled_pass(self, "forward", problem)(inputs, kernel)
        padded = padded_inputs(problem, inputs)
        outputs = sum_over_taps(
            problem,
            padded,
            accumulated(kernel, problem),
            reaches_of(problem),
            problem.output_spatial_shape,
            multiply_forward,
        )
        return ops.cast(outputs, problem.dtype)

    def input_gradient(self, problem, kernel, output_gradient):
        if self.compiled:
            run = compiled_pass(self, "input_gradient", problem)
            return run(kernel, output_gradient)
        inputs_gradient = input_gradient(
            problem,
            accumulated(kernel, problem),
            accumulated(output_gradient, problem),
        )
        return ops.cast(inputs_gradient, problem.dtype)

    def kernel_gradient(self, problem, inputs, output_gradient):
        if self.compiled:
            run = compiled_pass(self, "kernel_gradient", problem)
            return run(inputs, output_gradient)
        if self.lowering == "rows":
            if problem.data_format == "channels_first":
                inputs, output_gradient = map(turn_last, (inputs, output_gradient))
                problem = turned(problem)
            dtype = accumulator(problem)
            kernel = by_rows(problem, inputs, output_gradient, dtype)
        else:
            padded = padded_inputs(problem, inputs)
            gradient = accumulated(output_gradient, problem)
            kernel = by_taps(problem, padded, gradient)
        return ops.cast(ops.reshape(kernel, problem.kernel_shape), problem.dtype)

    def refusal(self, problem):
        if not problem.has_static_spatial_shape:
            return "the spatial shape is not known"
        if 0 in problem.output_spatial_shape:
            return "the output is empty"
        if problem.is_dense:
            return "it is for several groups: a dense convolution is `matmul`'s"
        if self.compiled and backends.active.compiles_alone_refusal():
            return backends.active.compiles_alone_refusal()
        terms = problem.taps * problem.channels_per_group // problem.kernel_size[0]
        if self.lowering == "rows":
            if problem.rank > 2 or not problem.is_depthwise:
                return "blocks of rows are for depthwise convolutions of rank 1 and 2"
            terms = max(terms, problem.kernel_size[0] if problem.rank == 1 else 0)
        if terms > MAX_TERMS:
            return f"{terms} terms in a row of the kernel are more than {MAX_TERMS}"
        return None

    def redundancy(self, compiler_mode):
        whole = self.compiled and compiler_mode not in ("eager", "graph")
        return "the whole step is compiled" if whole else None

    @property
    def family(self):
        return ":".join(self._words(self.lowering))

    def work(self, problem):
        return Work(problem.flops, problem.least_bytes, terms_written(problem))

    @classmethod
    def parse(cls, parameters):
        compiled = parameters[-1:] == [COMPILED]
        lowerings = parameters[:-1] if compiled else parameters
        if len(lowerings) > 1:
            text = ":".join(["direct", *parameters])
            raise ValueError(
                "`direct` takes a lowering, and 'compiled', such as "
                f"'direct:rows:compiled'. Received: {text!r}"
            )
        return cls(lowerings[0] if lowerings else LOWERINGS[0], compiled)

    @classmethod
    def candidates(cls, problem, pass_name) -> Iterator[Direct]:
        if problem.is_dense:
            return
        by_rows = pass_name == "kernel_gradient" and not backends.computes_on_gpu()
        for lowering in LOWERINGS if by_rows else LOWERINGS[:1]:
            yield cls(lowering)
            if backends.active.COMPILES_ALONE:
                yield cls(lowering, compiled=True)

    def __str__(self):
        return ":".join(self._words(*{self.lowering} - {LOWERINGS[0]}))

    def _words(self, *lowering: str) -> list[str]:
        return [self.name, *lowering, *([COMPILED] if self.compiled else [])]


@functools.lru_cache(maxsize=1024)
def compiled_pass(algorithm: Direct, pass_name: str, problem: Problem) -> Callable:
    """A pass as a function that the backend's compiler compiles separately."""
    backends.computes_on_gpu()  # cached before the trace asks for it
    plain = dataclasses.replace(algorithm, compiled=False)
    run = functools.partial(getattr(plain, pass_name), problem)
    return backends.active.compiled_alone(run)
