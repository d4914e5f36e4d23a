"""Convolution and pooling by their definition, in numpy and float64, channels first."""

import numpy as np


def convolution(x, kernel, strides=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    """Of images `(batch, channels, height, width)` with a kernel
    `(filters, channels / groups, height, width)`."""
    filters, count, *size = kernel.shape
    x = np.pad(x, [(0, 0), (0, 0), *[(p, p) for p in padding]])
    height, width = (
        (pixels - d * (k - 1) - 1) // s + 1
        for pixels, k, d, s in zip(x.shape[2:], size, dilation, strides, strict=True)
    )
    result = np.zeros((len(x), filters, height, width))
    for f in range(filters):
        first = f // (filters // groups) * count
        of_group = x[:, first : first + count]
        for i in range(size[0]):
            for j in range(size[1]):
                top, left = i * dilation[0], j * dilation[1]
                rows = slice(top, top + strides[0] * (height - 1) + 1, strides[0])
                columns = slice(left, left + strides[1] * (width - 1) + 1, strides[1])
                taps = of_group[:, :, rows, columns]
                result[:, f] += np.tensordot(taps, kernel[f, :, i, j], ([1], [0]))
    return result


def pooling(x, size, strides, before, outputs, kind="max", padding=0):
    """Of windows, of which the first begins `before` pixels ahead; their means count
    the zeros of the padding, but nothing beyond it."""
    height, width = x.shape[2:]
    result = np.empty((*x.shape[:2], *outputs))
    for i in range(outputs[0]):
        for j in range(outputs[1]):
            top, left = i * strides[0] - before[0], j * strides[1] - before[1]
            window = x[
                :,
                :,
                max(0, top) : max(0, top + size[0]),
                max(0, left) : max(0, left + size[1]),
            ]
            if kind == "max":
                result[:, :, i, j] = window.max((2, 3))
            else:
                rows = min(top + size[0], height + padding) - top
                columns = min(left + size[1], width + padding) - left
                result[:, :, i, j] = window.sum((2, 3)) / (rows * columns)
    return result


def normalization(x, gamma, beta, mean, variance, epsilon):
    """By the channels' statistics."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    gamma, beta, mean, variance = (
        each.reshape(shape) for each in (gamma, beta, mean, variance)
    )
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def softmax(x):
    """Along the last axis."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
