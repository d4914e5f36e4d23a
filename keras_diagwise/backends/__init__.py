"""What `keras.ops` has no word for: one thin module a backend, the active one
in `active`, and what is private in Keras in `keras_internals`.

A backend's module provides

- `differentiable(convolution, inputs, kernel)`: the forward pass of a
  `PlannedConvolution`, whose derivatives of every order are its three passes;
- `native_input_gradient(forward, problem, kernel, output_gradient)` and
  `native_kernel_gradient(forward, problem, inputs, output_gradient)`: the passes
  as the backend derives them from the stock `forward`;
- `native_conv(inputs, kernel, strides, padding, data_format, dilation_rate)`: the
  stock grouped convolution, `keras.ops.conv`, by the backend's own operation for it;
- `native_refusal(problem)`: why the stock convolution can't compute or can't
  train a problem here, or `None`;
- `sum_together(tensors, axis)`: each tensor's sum along an axis, in one pass over
  all of them where the compiler has one;
- `shape_of(tensor)`: its shape, hashable, and the quickest to have at each call;
- `trace_key()`: what the choice of a plan depends on beside the problem, as a
  small hashable value, read at each call;
- `must_run_native()`: whether a transformation is active that only the stock
  operation supports;
- `traces_python()`: whether a tracer of Python code is at work, whose graph holds
  operators rather than what they do; for a backend without `python_trace` the call must
  then be the stock one;
- `python_trace`: what such a tracer is asked, or `None`: its compiler mode, `MODE`;
  `constant(function)`, the function, to be run at a trace rather than traced;
  `sizes(tensor)`, a shape with `None` for what the trace leaves open;
  `must_run_native()`, as below, at a trace; `define_operator(convolution_of)`, which
  makes the operator `(left, right, pass_name, name)` whose convolution a name tells;
  and `differentiable(name, inputs, kernel)`, a call of its forward pass;
- `is_tracing(*tensors)`: whether a call with these is traced rather than run, so
  that nothing can be measured meanwhile;
- `flags()`: settings that change precision or the choice of kernels, by name, and
  `set_flags(flags)`; `child_variables()`: the environment variables by which a child
  process computes alike;
- `environment()`: the fields of the `Environment` that the backend knows;
- `device_place()`: a word for the device of this machine that is measured on;
- `needs_other_processes(model)`: whether a model's step waits for other processes;
- `compiler_mode_of(model)`: how the model's steps are compiled;
- `batch_shards()`: by how much the batch of a trace exceeds a device's;
- `step_shards(model)`: by how much the batch of a model's step does, of any step if
  it is `None`;
- `forget_compiled(function)`: makes the next compilation of `function` trace it
  anew, though an older compilation of it is still held;
- `synchronize(tensors)`: waits until they are computed;
- `device_events()`: two events that the device's own queue can record, the time
  between which it tells, or `None`;
- `compiled(function, compiler_mode)`: `function` as a model's step is compiled, and
  `compiled_ahead(function, compiler_mode, shapes, dtype)`, so far as it can be before
  it is called, in any thread;
- `triton_refusal()`: why no kernel of Triton's can run here, or `None`;
  `compute_capability()`: that of the device, or `None`; and where kernels can run,
  `launched(launch, left, right)`, the result of a kernel's `Launch`, and
  `compile_kernel(launch, dtype)`, which compiles it where the backend keeps such;
- `compiles_alone_refusal()`: why nothing can be compiled so now, or `None`;
- `TENSORS`, the types of its tensors and variables, and `STATE`, those of variables;
  `tensor_copier()`, which copies the tensors of a model; `tensor_attributes(tensor)`,
  what belongs to one beside its values; `restored_tensor(tensor, copy, attributes)`,
  the tensor as it was, or the copy where it can't be written; `keys_of_tensor(tensor)`,
  private names that Keras keeps in place of it; `UNIQUE`, types of what changes and
  can't be copied;
- `compiled_again(function, python_function)`: a compiled function of another one;
- `SHARED`, types of what two models may share; `PLAIN`, types that are no more than
  their attributes, whatever they tell `pickle`; `PROXIES` and `FLAGS_OF_PROXIES`,
  wrappers that pass for containers;
- `COMPILED_FUNCTIONS`, types of functions that keep what they were traced with;
- `random_state()` and `set_random_state(state)`: of the global generator;
- `compiled_alone(function)`: `function` compiled so that its operations are fused
  in a step that is not compiled, and `COMPILES_ALONE`, whether that is of use; where
  it is not, `function` itself;
- `HAS_XLA`: whether steps can be compiled by XLA.
"""

import importlib

import keras

from keras_diagwise.backends import keras_internals

TRAINING = ("jax", "tensorflow", "torch")
INFERENCE_ONLY = ("numpy", "openvino")


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
"""The kind of the device, once it was asked for: torch's tracer of Python code looks
through a cache of functools, and finds what it can't trace."""


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
    """Whether a tracer of Python code is at work in a compiler mode."""
    trace = active.python_trace
    return trace is not None and compiler_mode == trace.MODE


def constant_in_trace(function):
    """A function that is run while a trace of Python code is made, rather than traced:
    its result is a constant of the trace."""
    trace = active.python_trace
    return function if trace is None else trace.constant(function)
