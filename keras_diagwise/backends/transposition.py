"""Transpose rules of the three passes: framework-free, for every backend.

Each pass is bilinear in its two operands: `forward(inputs, kernel)`,
`input_gradient(kernel, output_gradient)`, `kernel_gradient(inputs,
output_gradient)`. The derivative of one with respect to an operand, applied to a
cotangent, is another of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def transpose_left(pass_name: str, cotangent: Any, right: Any) -> tuple[str, Any, Any]:
    """The pass and its operands that compute the gradient of `pass_name` with respect
    to its first operand."""
    return {
        "forward": ("input_gradient", right, cotangent),
        "input_gradient": ("kernel_gradient", cotangent, right),
        "kernel_gradient": ("input_gradient", cotangent, right),
    }[pass_name]


def transpose_right(pass_name: str, cotangent: Any, left: Any) -> tuple[str, Any, Any]:
    """`transpose_left` for the second operand."""
    return {
        "forward": ("kernel_gradient", left, cotangent),
        "input_gradient": ("forward", cotangent, left),
        "kernel_gradient": ("forward", left, cotangent),
    }[pass_name]


def gradients(
    pass_name: str,
    operands: Sequence[Any],
    needed: Sequence[bool],
    cotangent: Any,
    run: Callable[..., Any],
) -> list[Any]:
    """A pass's gradients with respect to its operands.

    Args:
        pass_name: the pass.
        operands: its two operands.
        needed: which of the gradients are needed; the others are `None`.
        cotangent: the gradient with respect to its result.
        run: runs a pass, given its name and operands.
    """
    left, right = operands
    transposes = ((transpose_left, right), (transpose_right, left))
    return [
        run(*transpose(pass_name, cotangent, other)) if is_needed else None
        for (transpose, other), is_needed in zip(transposes, needed, strict=True)
    ]
