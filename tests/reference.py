"""Convolution from its definition, in float64 numpy, and how far rounding can
take a computed one from it."""

import dataclasses

import numpy as np

UNIT_ROUNDOFF = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}


@dataclasses.dataclass(frozen=True)
class Passes:
    """The results of the three passes."""

    forward: np.ndarray
    input_gradient: np.ndarray
    kernel_gradient: np.ndarray


def passes(problem, inputs, kernel, output_gradient) -> Passes:
    """The passes, from the definition: for each output pixel and each tap, if
    the tap falls on a pixel of the input, multiply and add."""
    inputs = groups_last(inputs, problem, problem.channels_per_group)
    gradient = groups_last(output_gradient, problem, problem.filters_per_group)
    kernel = kernel.astype("float64").reshape(
        *problem.kernel_size,
        problem.channels_per_group,
        problem.groups,
        problem.filters_per_group,
    )
    outputs = np.zeros_like(gradient)
    input_gradient = np.zeros_like(inputs)
    kernel_gradient = np.zeros_like(kernel)
    starts = [before for before, _ in problem.padding_pairs]
    for out in np.ndindex(problem.output_spatial_shape):
        for tap in np.ndindex(problem.kernel_size):
            at = tuple(
                o * s + t * d - start
                for o, s, t, d, start in zip(
                    out,
                    problem.strides,
                    tap,
                    problem.dilation_rate,
                    starts,
                    strict=True,
                )
            )
            sizes = zip(at, problem.spatial_shape, strict=True)
            if not all(0 <= i < n for i, n in sizes):
                continue
            pixel, result = (slice(None), *at), (slice(None), *out)
            outputs[result] += np.einsum("bgc,cgf->bgf", inputs[pixel], kernel[tap])
            input_gradient[pixel] += np.einsum(
                "bgf,cgf->bgc", gradient[result], kernel[tap]
            )
            kernel_gradient[tap] += np.einsum(
                "bgc,bgf->cgf", inputs[pixel], gradient[result]
            )
    return Passes(
        groups_back(outputs, problem),
        groups_back(input_gradient, problem),
        kernel_gradient.reshape(problem.kernel_shape),
    )


def groups_last(tensor, problem, per_group):
    """float64, channels last, the channels on two axes."""
    tensor = np.asarray(tensor, "float64")
    if problem.data_format == "channels_first":
        tensor = np.moveaxis(tensor, 1, -1)
    return tensor.reshape(*tensor.shape[:-1], problem.groups, per_group).copy()


def groups_back(tensor, problem):
    tensor = tensor.reshape(*tensor.shape[:-2], tensor.shape[-2] * tensor.shape[-1])
    return (
        np.moveaxis(tensor, -1, 1)
        if problem.data_format == "channels_first"
        else tensor
    )


def bounds(problem, inputs, kernel, output_gradient, accumulator=None) -> Passes:
    """How far each element of a computed pass may be from the exact one.

    The standard bound of a sum of n products: n unit roundoffs of the dtype that
    it is summed in, times the sum of the products' magnitudes, and one of the
    dtype that it is stored in.
    """
    magnitudes = passes(problem, *map(np.abs, (inputs, kernel, output_gradient)))
    pixels = int(np.prod(problem.output_spatial_shape)) * len(inputs)
    lengths = {
        "forward": problem.taps * problem.channels_per_group,
        "input_gradient": problem.taps * problem.filters_per_group,
        "kernel_gradient": pixels,
    }
    stored = UNIT_ROUNDOFF[problem.dtype]
    summed = UNIT_ROUNDOFF[accumulator or problem.dtype]
    smallest = (
        np.finfo("float16").smallest_subnormal if problem.dtype == "float16" else 0
    )
    return Passes(
        **{
            name: ((length + 2) * summed * 1.01 + stored) * getattr(magnitudes, name)
            + smallest
            for name, length in lengths.items()
        }
    )


def summed_in(algorithm, dtype):
    """The dtype in which an algorithm promises to sum; native promises nothing."""
    low = dtype in ("float16", "bfloat16")
    return "float32" if low and algorithm.name in ("direct", "triton") else dtype
