"""The algorithm `triton` and its parameters."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from keras import ops

from keras_diagwise import backends
from keras_diagwise.algorithms.algorithm import Algorithm
from keras_diagwise.algorithms.triton import cost
from keras_diagwise.algorithms.triton.launch import axes, launch

UNROLLS = (4, 8)
VECTOR_BYTES = (16, 8)
MAX_STRIDE = 8
MAX_TAPS_ALONG = 64


@dataclasses.dataclass(frozen=True)
class Triton(Algorithm):
    """A kernel for each pass that reads its operands once and keeps all sums in
    registers.

    Products are summed in float32, or float64 for float64. Results are bitwise
    reproducible.

    Attributes:
        unroll: most neighbouring results that a lane computes, with shared loads.
        vector_bytes: most bytes that a lane loads at once.
    """

    unroll: int = UNROLLS[0]
    vector_bytes: int = VECTOR_BYTES[0]

    name = "triton"
    revision = 1
    is_kernel = True

    def __post_init__(self):
        if self.unroll not in UNROLLS:
            raise ValueError(
                f"`unroll` must be one of {UNROLLS}. Received: unroll={self.unroll!r}"
            )
        if self.vector_bytes not in VECTOR_BYTES:
            raise ValueError(
                f"`vector_bytes` must be one of {VECTOR_BYTES}. "
                f"Received: vector_bytes={self.vector_bytes!r}"
            )

    def forward(self, problem, inputs, kernel):
        return self.run(problem, "forward", inputs.shape[0], inputs, kernel)

    def input_gradient(self, problem, kernel, output_gradient):
        batch = output_gradient.shape[0]
        return self.run(problem, "input_gradient", batch, kernel, output_gradient)

    def kernel_gradient(self, problem, inputs, output_gradient):
        batch = inputs.shape[0]
        shares = self.run(problem, "kernel_gradient", batch, inputs, output_gradient)
        total = ops.reshape(ops.sum(shares, axis=0), problem.kernel_shape)
        return ops.cast(total, problem.dtype)

    def run(self, problem, pass_name, batch, left, right):
        """Computes a pass by its kernel."""
        how = self.launch(problem, pass_name, batch)
        if 0 in (batch, *how.shape):
            return ops.zeros(how.shape, how.dtype)
        return backends.active.launched(how, left, right)

    def refusal(self, problem):
        return self.misfit(problem) or backends.active.triton_refusal()

    @classmethod
    def is_for(cls, device_kind):
        return device_kind == "gpu"

    def misfit(self, problem):
        """Why it can't compute a problem on any device, or `None`."""
        if problem.rank > 2 or not problem.is_depthwise:
            return "it is for depthwise convolutions of rank 1 and 2"
        if not problem.has_static_spatial_shape:
            return "the spatial shape is not known"
        if 0 in (problem.batch, *problem.output_spatial_shape):
            return "there is nothing to compute"
        across, along = axes(problem)
        if max(across.stride, along.stride) > MAX_STRIDE:
            return f"a stride of more than {MAX_STRIDE}"
        if along.taps > MAX_TAPS_ALONG:
            return f"{along.taps} taps along an axis are more than {MAX_TAPS_ALONG}"
        if backends.active.batch_shards() > 1:
            return "a kernel of its own would gather the batch of all devices"
        return None

    def predicted_seconds(self, problem, pass_name, device):
        if problem.dtype == "float64":
            return None  # no machine code of it was read
        how = self.launch(problem, pass_name, problem.batch)
        return cost.seconds(problem, how, device)

    def compile(self, problem, pass_name):
        how = self.launch(problem, pass_name, problem.batch)
        backends.active.compile_kernel(how, problem.dtype)

    @classmethod
    def parse(cls, parameters):
        try:
            return cls(*map(int, parameters))
        except (TypeError, ValueError) as error:
            text = ":".join(["triton", *parameters])
            raise ValueError(
                f"`triton` takes neighbours in a lane ({UNROLLS}) and bytes of a load "
                f"({VECTOR_BYTES}), such as 'triton:8:16'. Received: {text!r}"
            ) from error

    @classmethod
    def candidates(cls, problem, pass_name) -> Iterator[Triton]:
        """Nothing where no kernel can run: there the names would have no meaning."""
        if backends.active.triton_refusal() is None:
            yield from cls.variants(problem, pass_name)

    @classmethod
    def variants(cls, problem, pass_name) -> Iterator[Triton]:
        """The instances that are different programs for a pass, on any device."""
        found = set()
        for each in itertools.starmap(cls, itertools.product(UNROLLS, VECTOR_BYTES)):
            if each.misfit(problem) is None:
                how = each.launch(problem, pass_name, problem.batch or 1)
                if how not in found:
                    found.add(how)
                    yield each

    def launch(self, problem, pass_name, batch):
        """The launch of a pass."""
        return launch(problem, pass_name, batch, self.unroll, self.vector_bytes)

    def __str__(self):
        return f"{self.name}:{self.unroll}:{self.vector_bytes}"
