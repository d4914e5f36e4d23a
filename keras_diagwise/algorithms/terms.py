"""The terms that `direct` sums: what one tap adds to each of the three passes."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator

from keras import ops

from keras_diagwise.problem import Problem


def taps(problem: Problem) -> Iterator[tuple[int, ...]]:
    """The index of each tap in the kernel."""
    return itertools.product(*map(range, problem.kernel_size))


def accumulator(problem: Problem) -> str:
    """The dtype that the terms are summed in."""
    return "float32" if problem.dtype in ("bfloat16", "float16") else problem.dtype


def accumulated(tensor, problem: Problem):
    """`tensor` in the dtype that the terms are summed in."""
    return ops.cast(tensor, accumulator(problem))


def pad(tensor, problem: Problem, pairs):
    """`tensor` with zeros before and after it along each spatial axis."""
    if not any(itertools.chain.from_iterable(pairs)):
        return tensor
    widths = [(0, 0)] * (problem.rank + 2)
    for axis, pair in zip(problem.spatial_axes, pairs, strict=True):
        widths[axis] = pair
    return ops.pad(tensor, widths)


def window(tensor, problem: Problem, tap, sizes):
    """What a tap sees of a padded tensor: `sizes` pixels along the spatial axes."""
    index = [slice(None)] * (problem.rank + 2)
    for axis, t, size, stride, dilation in zip(
        problem.spatial_axes,
        tap,
        sizes,
        problem.strides,
        problem.dilation_rate,
        strict=True,
    ):
        start = t * dilation
        index[axis] = slice(start, start + (size - 1) * stride + 1, stride)
    return tensor[tuple(index)]


def sum_of_terms(terms):
    """The sum, without the zero that Python's `sum` starts from.

    By the tensors' own `+`: on TensorFlow `ops.add` makes a bias addition of some
    additions, which fails on an empty batch (seen in Keras 3.15).
    """
    return functools.reduce(operator.add, terms)


def split_channels(tensor, problem: Problem, per_group: int):
    """`tensor` with its channels as `(groups, per_group)`, on two axes."""
    shape = list(tensor.shape)
    batch, axis = -1, problem.channel_axis
    return ops.reshape(
        tensor, (batch, *shape[1:axis], problem.groups, per_group, *shape[axis + 1 :])
    )


def merge_channels(tensor, problem: Problem):
    """The way back from `split_channels`."""
    shape = list(tensor.shape)
    axis = problem.channel_axis
    merged = shape[axis] * shape[axis + 1]
    return ops.reshape(tensor, (-1, *shape[1:axis], merged, *shape[axis + 2 :]))


def along_channels(weights, problem: Problem, axes: int = 1):
    """Weights of the last `axes` axes, shaped to multiply inputs or outputs."""
    if problem.data_format == "channels_last":
        return weights
    return ops.reshape(weights, (*weights.shape[-axes:], *(1,) * problem.rank))


def multiply_forward(problem: Problem, inputs, weights):
    """A tap's term of the outputs.

    Args:
        inputs: what the tap sees, `(batch, *pixels, channels)` in the data format.
        weights: `(channels_per_group, filters)`.
    """
    if problem.is_depthwise and problem.filters_per_group == 1:
        return ops.multiply(inputs, along_channels(weights[0], problem))
    inputs = split_channels(inputs, problem, problem.channels_per_group)
    weights = ops.reshape(weights, (-1, problem.groups, problem.filters_per_group))
    position = problem.channel_axis + 1
    terms = sum_of_terms(
        ops.multiply(
            keep_one(inputs, position, i), along_channels(weights[i], problem, 2)
        )
        for i in range(problem.channels_per_group)
    )
    return merge_channels(terms, problem)


def multiply_backward(problem: Problem, gradient, weights):
    """A tap's term of the input gradient: the transpose of `multiply_forward`."""
    if problem.is_depthwise and problem.filters_per_group == 1:
        return ops.multiply(gradient, along_channels(weights[0], problem))
    gradient = split_channels(gradient, problem, problem.filters_per_group)
    weights = ops.reshape(weights, (-1, problem.groups, problem.filters_per_group))
    axis = problem.channel_axis + 1
    columns = [
        ops.sum(
            ops.multiply(gradient, along_channels(weights[i], problem, 2)), axis=axis
        )
        for i in range(problem.channels_per_group)
    ]
    if len(columns) == 1:
        return columns[0]
    return merge_channels(ops.stack(columns, axis=axis), problem)


def multiply_and_reduce(problem: Problem, inputs, gradient):
    """A tap's row of the kernel gradient, `(channels_per_group, filters)`."""
    batch_and_pixels = (0, *problem.spatial_axes)
    if problem.is_depthwise and problem.filters_per_group == 1:
        return ops.sum(ops.multiply(inputs, gradient), axis=batch_and_pixels)[None]
    inputs = split_channels(inputs, problem, problem.channels_per_group)
    gradient = split_channels(gradient, problem, problem.filters_per_group)
    axis = problem.channel_axis
    if problem.data_format == "channels_last":
        batch_and_pixels = tuple(range(axis))
    else:
        batch_and_pixels = (0, *range(axis + 2, axis + 2 + problem.rank))
    rows = [
        ops.sum(
            ops.multiply(keep_one(inputs, axis + 1, i), gradient),
            axis=batch_and_pixels,
        )
        for i in range(problem.channels_per_group)
    ]
    return ops.reshape(ops.stack(rows), (problem.channels_per_group, problem.filters))


def keep_one(tensor, axis: int, index: int):
    """The slice of one element along `axis`, which stays."""
    return tensor[(slice(None),) * axis + (slice(index, index + 1),)]
