"""The three passes of a convolution in dense blocks, also where the backend's does not
support the layout or the dilation."""

from __future__ import annotations

import dataclasses

from keras import ops

from keras_diagwise.algorithms.native import Native
from keras_diagwise.problem import Problem

NATIVE = Native()


def forward(problem: Problem, inputs, kernel):
    """The outputs. Shapes are those of `Algorithm.forward`."""
    if needs_turning(problem):
        return turn_first(forward(turned(problem), turn_last(inputs), kernel))
    if needs_spreading(problem):
        return forward(spread_problem(problem), inputs, spread(kernel, problem))
    return NATIVE.forward(problem, inputs, kernel)


def input_gradient(problem: Problem, kernel, output_gradient):
    """The gradient with respect to the inputs."""
    if needs_turning(problem):
        gradient = turn_last(output_gradient)
        return turn_first(input_gradient(turned(problem), kernel, gradient))
    if needs_spreading(problem):
        return input_gradient(
            spread_problem(problem), spread(kernel, problem), output_gradient
        )
    return NATIVE.input_gradient(problem, kernel, output_gradient)


def kernel_gradient(problem: Problem, inputs, output_gradient):
    """The gradient with respect to the kernel."""
    if needs_turning(problem):
        operands = turn_last(inputs), turn_last(output_gradient)
        return kernel_gradient(turned(problem), *operands)
    if needs_spreading(problem):
        gradient = kernel_gradient(spread_problem(problem), inputs, output_gradient)
        return gradient[tuple(slice(None, None, d) for d in problem.dilation_rate)]
    return NATIVE.kernel_gradient(problem, inputs, output_gradient)


def refusal(problem: Problem) -> str | None:
    """Why the blocks can't be computed here, or `None`."""
    if needs_turning(problem):
        problem = turned(problem)
    if needs_spreading(problem):
        problem = spread_problem(problem)
    return NATIVE.refusal(problem)


def needs_turning(problem: Problem) -> bool:
    """Whether the backend's convolution needs the channels last."""
    return problem.data_format == "channels_first" and bool(NATIVE.refusal(problem))


def needs_spreading(problem: Problem) -> bool:
    """Whether the backend's convolution needs a kernel without dilation."""
    return max(problem.dilation_rate) > 1 and bool(NATIVE.refusal(problem))


def spread_problem(problem: Problem) -> Problem:
    """The equal convolution by a kernel with zeros in place of dilation."""
    return dataclasses.replace(
        problem,
        kernel_size=problem.effective_kernel_size,
        dilation_rate=(1,) * problem.rank,
    )


def spread(kernel, problem: Problem):
    """`kernel` with zeros between its taps: each tap gets its own axis, which is padded
    and then merged."""
    for axis, dilation in enumerate(problem.dilation_rate):
        shape = list(kernel.shape)
        taps = shape[axis]
        widths = [(0, 0)] * (len(shape) + 1)
        widths[axis + 1] = (0, dilation - 1)
        padded = ops.pad(ops.expand_dims(kernel, axis + 1), widths)
        shape[axis] = taps * dilation
        whole = slice(0, (taps - 1) * dilation + 1)
        kernel = ops.reshape(padded, shape)[(slice(None),) * axis + (whole,)]
    return kernel


def turned(problem: Problem) -> Problem:
    """The problem with its channels last."""
    return dataclasses.replace(problem, data_format="channels_last")


def turn_last(tensor):
    """Channels first to channels last."""
    return ops.moveaxis(tensor, 1, -1)


def turn_first(tensor):
    """Channels last to channels first."""
    return ops.moveaxis(tensor, -1, 1)
