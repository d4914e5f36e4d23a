"""Triton's interpreter, in which kernels run on a CPU, on torch and on JAX.

It runs where the variable `TRITON_INTERPRET` is 1 when the kernels are imported.
"""

import importlib.util
import os

import keras
import ml_dtypes
import numpy as np
import pytest

from keras_diagwise import backends

IS_THERE = (
    os.environ.get("TRITON_INTERPRET") == "1"
    and importlib.util.find_spec("triton") is not None
    and keras.backend.backend() in ("jax", "torch")
)

needs_interpreter = pytest.mark.skipif(
    not IS_THERE, reason="TRITON_INTERPRET is not 1, or Triton is not installed"
)


class Memory:
    """An array as the interpreter takes a tensor: it is on the host already."""

    def __init__(self, array):
        self.array, self.dtype = array, array.dtype

    def data_ptr(self):
        return self.array.ctypes.data

    def untyped_storage(self):
        return self

    def cpu(self):
        return self

    def new_empty(self, size, device):
        return self

    def storage_offset(self):
        return 0

    size = stride = storage_offset

    def set_(self, *place):
        """Nothing: it has its memory."""

    def copy_(self, other):
        """Nothing: it is the same memory."""


def round_to_nearest():
    """As a GPU does: the interpreter of Triton 3.6 cuts bfloat16 off."""
    import triton.language as tl
    from triton.runtime import interpreter

    cast = interpreter.InterpreterBuilder.cast_impl

    def rounded(self, source, dtype):
        if (source.dtype.scalar, dtype.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, source, dtype)
        data = np.asarray(source.data).astype(ml_dtypes.bfloat16).view(np.uint16)
        return interpreter.TensorHandle(data, dtype.scalar)

    interpreter.InterpreterBuilder.cast_impl = rounded


def accept_scalars():
    """Scalars are arrays of one element in the interpreter of Triton 3.6, and numpy 2.4
    makes no int of them."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patched


if IS_THERE:
    accept_scalars()
    round_to_nearest()


def launched(launch, left, right):
    """On JAX, what `launched` of its backend is for a GPU."""
    import jax

    from keras_diagwise.algorithms.triton import kernels

    kernel = getattr(kernels, launch.kernel)[launch.programs,]

    def run(*operands):
        operands = [Memory(np.ascontiguousarray(each)) for each in operands]
        result = Memory(np.empty(launch.shape, jax.numpy.dtype(launch.dtype)))
        kernel(*operands, *launch.sizes, result, **dict(launch.constants))
        return result.array

    shape = jax.ShapeDtypeStruct(launch.shape, launch.dtype)
    return jax.pure_callback(run, shape, left, right)


@pytest.fixture
def interpreted(monkeypatch):
    """Kernels run, in the interpreter."""
    if keras.backend.backend() == "jax":
        monkeypatch.setattr(backends.active, "launched", launched)
        monkeypatch.setattr(backends.active, "triton_refusal", lambda: None)
        monkeypatch.setattr(backends.active, "runs_kernels", lambda module: True)
