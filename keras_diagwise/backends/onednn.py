"""Errors of oneDNN, which computes convolutions for TensorFlow and torch on CPUs."""

from __future__ import annotations

from keras_diagwise.problem import Problem


def refusal(problem: Problem) -> str | None:
    """Why oneDNN's convolution can't be trusted with a problem, or `None`.

    Seen in TensorFlow 2.21 and torch 2.13, against float64:

    - a single channel: where a strided axis has one output, the forward pass reads out
      of bounds: 1.6e11 for -1.46, with a 4×4 kernel and strides of 1 and 3 on 3×1
      pixels, padded;
    - a kernel of one tap with unequal strides: its gradient is written out of bounds,
      and the process dies later, elsewhere.

    In bfloat16, on CPUs with instructions for it (AVX-512 BF16), also:

    - a strided axis with one output: the forward pass (pytorch/pytorch issue 169688)
      and the kernel's gradient read out of bounds: 1e32 for 1, in one of a hundred such
      problems;
    - padded volumes: the forward pass and the kernel's gradient, with any stride.
    """
    if problem.dtype not in ("float32", "bfloat16"):
        return None
    axes = zip(problem.output_spatial_shape, problem.strides, strict=True)
    has_one_output = any(out == 1 and stride > 1 for out, stride in axes)
    is_unequal = len(set(problem.strides)) > 1
    if problem.channels == 1 and (has_one_output or is_unequal):
        return "oneDNN errs on one channel under such strides"
    if problem.taps == 1 and is_unequal:
        return "oneDNN errs on one tap under unequal strides"
    if problem.dtype == "float32":
        return None
    if has_one_output:
        return "oneDNN errs in bfloat16 where a strided axis has one output"
    if problem.rank == 3 and problem.padding == "same":
        return "oneDNN errs in bfloat16 on padded volumes"
    return None
