"""The three passes in float64 numpy, the reference for a candidate's numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_diagwise.problem import Problem

OPERANDS = {
    "forward": ("input", "kernel"),
    "input_gradient": ("kernel", "output"),
    "kernel_gradient": ("input", "output"),
}
"""The two tensors that each pass takes, in the order of an algorithm's arguments."""

MAX_ELEMENTS = 2**23
"""Elements of a chunk of images: 64 MiB of float64."""


def operand_shapes(problem: Problem, pass_name: str) -> list[tuple[int, ...]]:
    """The shapes of a pass's two operands."""
    shapes = {
        "input": problem.input_shape(),
        "kernel": problem.kernel_shape,
        "output": problem.output_shape(),
    }
    return [shapes[name] for name in OPERANDS[pass_name]]


def exact_pass(
    problem: Problem, pass_name: str, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """A pass in float64.

    Args:
        problem: the problem; batch and spatial shape known.
        pass_name: one of `PASSES`.
        left: the first operand, in the shape that an algorithm takes.
        right: the second.

    Returns:
        The result, in the shape that an algorithm returns.
    """
    tensors = dict(zip(OPERANDS[pass_name], (left, right), strict=True))
    kernel = tensors.get("kernel")
    if kernel is not None:
        tensors["kernel"] = kernel.astype("float64").reshape(kernel_by_group(problem))
    run: Callable[..., Any] = {
        "forward": forward,
        "input_gradient": input_gradient,
        "kernel_gradient": kernel_gradient,
    }[pass_name]
    per_image = math.prod(problem.input_shape()[1:]) + math.prod(
        problem.output_shape()[1:]
    )
    step = max(1, MAX_ELEMENTS // max(1, per_image))
    parts = []
    for start in range(0, problem.batch or 0, step):
        images = {
            name: groups_last(tensor[start : start + step], problem)
            if name != "kernel"
            else tensor
            for name, tensor in tensors.items()
        }
        parts.append(run(problem, **images))
    if pass_name == "kernel_gradient":
        total = np.sum([np.zeros(kernel_by_group(problem)), *parts], axis=0)
        return total.reshape(problem.kernel_shape)
    return groups_back(np.concatenate(parts), problem)


def forward(problem, input, kernel):
    """The outputs, channels last and by group."""
    padded = pad(input, problem)
    shape = (len(input), *problem.output_spatial_shape, problem.groups)
    outputs = np.zeros((*shape, problem.filters_per_group))
    for tap, window in windows(problem):
        outputs += np.einsum("...gc,cgf->...gf", padded[window], kernel[tap])
    return outputs


def input_gradient(problem, kernel, output):
    """The gradient with respect to the inputs, channels last and by group."""
    shape = (len(output), *problem.spatial_shape, problem.groups)
    padded = pad(np.zeros((*shape, problem.channels_per_group)), problem)
    for tap, window in windows(problem):
        padded[window] += np.einsum("...gf,cgf->...gc", output, kernel[tap])
    crop = tuple(
        slice(before, before + n)
        for (before, _), n in zip(
            problem.padding_pairs, problem.spatial_shape, strict=True
        )
    )
    return padded[(slice(None), *crop)]


def kernel_gradient(problem, input, output):
    """The gradient with respect to the kernel, by group."""
    padded = pad(input, problem)
    outputs = output.reshape(-1, *output.shape[-2:])
    gradient = np.zeros(kernel_by_group(problem))
    for tap, window in windows(problem):
        pixels = padded[window].reshape(-1, *input.shape[-2:])
        gradient[tap] = np.einsum("ngc,ngf->cgf", pixels, outputs)
    return gradient


def windows(problem: Problem) -> Iterator[tuple[tuple, tuple]]:
    """Each tap, and the pixels of the padded input that it reads."""
    for tap in np.ndindex(problem.kernel_size):
        window = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, s, n in zip(
                tap,
                problem.dilation_rate,
                problem.strides,
                problem.output_spatial_shape,
                strict=True,
            )
        )
        yield tap, (slice(None), *window)


def pad(tensor, problem: Problem):
    """Zeros around the pixels of a tensor by group."""
    return np.pad(tensor, [(0, 0), *problem.padding_pairs, (0, 0), (0, 0)])


def kernel_by_group(problem: Problem) -> tuple[int, ...]:
    """The kernel's shape with its filters on two axes."""
    return (
        *problem.kernel_size,
        problem.channels_per_group,
        problem.groups,
        problem.filters_per_group,
    )


def groups_last(tensor, problem: Problem):
    """float64, channels last, the channels on two axes."""
    tensor = tensor.astype("float64")
    if problem.data_format == "channels_first":
        tensor = np.moveaxis(tensor, 1, -1)
    return tensor.reshape(*tensor.shape[:-1], problem.groups, -1)


def groups_back(tensor, problem: Problem):
    """The inverse of `groups_last`."""
    tensor = tensor.reshape(*tensor.shape[:-2], -1)
    last = problem.data_format == "channels_last"
    return tensor if last else np.moveaxis(tensor, -1, 1)
