"""Where oneDNN, which computes convolutions for TensorFlow and torch on CPUs, errs."""

from __future__ import annotations

from keras_diagwise.problem import Problem


def refusal(problem: Problem) -> str | None:
    """Why oneDNN's convolution in bfloat16 can't be trusted with a problem, or `None`.

    On CPUs with instructions for it (AVX-512 BF16), in TensorFlow 2.21 and torch 2.13:

    - an axis with one output and a stride reads what is not the tensor's, in the
      forward pass (pytorch/pytorch issue 169688) and in the kernel's gradient: 1e32
      for 1, in one of a hundred such problems;
    - a kernel of one tap under unequal strides writes its gradient beyond the
      tensor: the process dies later, elsewhere.
    """
    if problem.dtype != "bfloat16":
        return None
    axes = zip(problem.output_spatial_shape, problem.strides, strict=True)
    if any(out == 1 and stride > 1 for out, stride in axes):
        return "oneDNN errs in bfloat16 where a strided axis has one output"
    if problem.taps == 1 and len(set(problem.strides)) > 1:
        return "oneDNN errs in bfloat16 on one tap under unequal strides"
    return None
