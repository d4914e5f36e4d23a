"""All that `keras.ops` lacks: one thin module per backend, the active one in `active`,
and Keras's private parts in `keras_internals`.

A backend's module provides

- `differentiable(convolution, inputs, kernel)`: the forward pass of a
  `PlannedConvolution`, with derivatives of every order by its three passes;
- `native_input_gradient(forward, problem, kernel, output_gradient)` and
  `native_kernel_gradient(forward, problem, inputs, output_gradient)`: the passes
  as the backend derives them from the stock `forward`;
- `native_conv(inputs, kernel, strides, padding, data_format, dilation_rate)`: the
  stock grouped convolution, `keras.ops.conv`, by the backend's own operation;
- `native_refusal(problem)`: why the stock convolution can't compute or can't
  train a problem here, or `None`;
- `sum_together(tensors, axis)`: each tensor's sum along an axis, in one pass over
  all of them where the compiler supports it;
- `shape_of(tensor)`: its shape, hashable, by the fastest way in each call;
- `trace_key()`: the state besides the problem on which the choice of a plan depends,
  as a small hashable value, read in each call;
- `canonical_dtype(dtype)`: the dtype that tensors have which are asked to have this
  one;
- `must_run_native()`: whether a transformation is active that only the stock
  operation supports;
- `traces_python()`: whether Python code is being traced into a graph of whole
  operators; for a backend without `python_trace` the call must then be the stock one;
- `python_trace`: the interface to such a tracer, or `None`: its compiler mode, `MODE`;
  `constant(function)`, the function, to be run during a trace rather than traced;
  `sizes(tensor)`, a shape with `None` for sizes that the trace leaves open;
  `is_elsewhere()`, whether operands are moved to another device than Keras's;
  `must_run_native()`, as above, in a trace; `define_operator(convolution_of)`, which
  defines the operator `(left, right, pass_name, name)`, whose convolution has that
  name; and `differentiable(name, inputs, kernel)`, a call of its forward pass;
- `is_tracing(*tensors)`: whether a call with these tensors is traced rather than run,
  so that nothing can be measured;
- `flags()`: settings that change precision or the choice of kernels, by name, and
  `set_flags(flags)`; `child_variables()`: the environment variables with which a child
  process computes alike;
- `environment()`: the fields of the `Environment` that the backend knows;
- `accelerator_index()`: which of the visible accelerators is measured on, or `None`
  if the CPU is;
- `needs_other_processes(model)`: whether a model's step waits for other processes;
- `compiler_mode_of(model)`: how the model's steps are compiled;
- `batch_shards()`: ratio of a trace's batch to a device's;
- `step_shards(model)`: ratio of the batch of a model's step to a device's, or that of
  any step if `model` is `None`;
- `forget_compiled(function)`: makes the next compilation of `function` trace it
  anew, even if an older compilation of it is still alive;
- `synchronize(tensors)`: waits until they are computed;
- `device_events()`: two events that time work in the device's own queue, or `None`;
- `compiled(function, compiler_mode)`: `function` compiled as in a model's step, and
  `compiled_ahead(function, compiler_mode, shapes, dtype)`, as far as possible before
  it is called, in any thread;
- `triton_refusal()`: why no Triton kernel can run here, or `None`;
  `compute_capability()`: that of the device, or `None`; and where kernels can run,
  `launched(launch, left, right)`, the result of a kernel's `Launch`, and
  `compile_kernel(launch, dtype)`, which compiles it if the backend caches kernels;
- `compiles_alone_refusal()`: why `compiled_alone` can't be used now, or `None`;
- `TENSORS`, the types of its tensors and variables, and `STATE`, those of variables;
  `tensor_copier()`, which copies the tensors of a model; `tensor_attributes(tensor)`,
  a tensor's state besides its values; `restored_tensor(tensor, copy, attributes)`,
  the tensor as it was, or the copy if it can't be written; `keys_of_tensor(tensor)`,
  private names that Keras keeps in place of it; `UNIQUE`, types with state that can't
  be copied;
- `compiled_again(function, python_function)`: `python_function` compiled as `function`
  was;
- `SHARED`, types that two models may share; `PLAIN`, types that consist of their
  attributes, whatever they tell `pickle`; `PROXIES` and `FLAGS_OF_PROXIES`, wrappers
  that pass for containers;
- `COMPILED_FUNCTIONS`, types of functions that keep what they were traced with;
- `random_state()` and `set_random_state(state)`: state of the global generator;
- `compiled_alone(function)`: `function` compiled so that its operations are fused
  in a step that is not compiled, and `COMPILES_ALONE`, whether that is useful; where
  it is not, `function` itself;
- `HAS_XLA`: whether steps can be compiled by XLA;
- `MATMUL_KEEPS_AXES`: whether the kernel gradient of `keras.ops.matmul` contracts the
  axes of a batch of pixels as they are, rather than as one.
"""

import importlib

import keras

from keras_diagwise.backends import keras_internals
from keras_diagwise.backends.names import INFERENCE_ONLY, TRAINING


def module_of(backend: str) -> str:
    """The name of a backend's module.

    Raises:
        ImportError: if there is none.
    """
    if backend in TRAINING:
        return f"{backend}_backend"
    if backend in INFERENCE_ONLY:
        return "inference_backend"
    raise ImportError(
        f"keras_diagwise supports the Keras backends {', '.join(TRAINING)} and, for "
        f"inference, {', '.join(INFERENCE_ONLY)}. Received: KERAS_BACKEND={backend}"
    )


active = importlib.import_module(f"{__name__}.{module_of(keras.backend.backend())}")


KINDS: dict[str, str] = {}
"""Cache of the device's kind: torch's tracer of Python code traces through caches of
functools, and meets code that it can't trace."""


def computes_on_gpu() -> bool:
    """Whether the backend computes on a GPU."""
    if "device" not in KINDS:
        KINDS["device"] = active.environment()["device_kind"]
    return KINDS["device"] == "gpu"


__all__ = [
    "INFERENCE_ONLY",
    "TRAINING",
    "active",
    "computes_on_gpu",
    "keras_internals",
]


def is_python_trace(compiler_mode: str) -> bool:
    """Whether Python code is traced in a compiler mode."""
    trace = active.python_trace
    return trace is not None and compiler_mode == trace.MODE


def constant_in_trace(function):
    """`function`, to be run during a trace of Python code rather than traced: its
    result is a constant of the trace."""
    trace = active.python_trace
    return function if trace is None else trace.constant(function)
