"""The three passes of a depthwise convolution of rank 2, in Triton.

In the kernels, `along` is the spatial axis along which one lane computes several
neighbours, `UNROLL` of them, and `across` is the other. Channels last: lanes hold
neighbouring channels, and `along` is the width. Channels first: lanes hold neighbouring
columns, and `along` is the height.

A tile is `(LANES, WIDTH)`, and its second axis is contiguous in memory. Products are
summed in float32, or in float64 for float64 operands. Only the geometry of the kernel
is compiled in; sizes are arguments, so that a model needs only a few programs. The
number of channels is given in units of `VECTOR`, from which the compiler infers how
wide a load may be.
"""

from keras_diagwise.algorithms.triton.kernels.forward import forward
from keras_diagwise.algorithms.triton.kernels.input_gradient import input_gradient
from keras_diagwise.algorithms.triton.kernels.kernel_gradient import kernel_gradient
from keras_diagwise.algorithms.triton.kernels.tiles import SIZES

__all__ = ["SIZES", "forward", "input_gradient", "kernel_gradient"]
