"""`triton`: hand-written kernels for NVIDIA GPUs, in Triton's language."""

from keras_diagwise.algorithms.triton.algorithm import Triton

__all__ = ["Triton"]
