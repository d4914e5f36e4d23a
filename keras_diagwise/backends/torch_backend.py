"""torch: each pass an autograd function, with the other passes as gradients."""

from __future__ import annotations

import copy
import functools
import importlib.util
import operator
import os
import sys

import keras
import torch
from torch.nn import grad as convolution_gradients

from keras_diagwise.backends import inductor, keras_internals, onednn, torch_trace
from keras_diagwise.backends.transposition import gradients
from keras_diagwise.backends.triton import WARPS, capability_refusal


def differentiable(convolution, inputs, kernel):
    """By stock's operation on another device than Keras's, as in a `keras.device`."""
    if inputs.device.type != device().type:
        return convolution.by_stock.compute("forward", inputs, kernel)
    return Bilinear.apply("forward", convolution, inputs, kernel)


class Bilinear(torch.autograd.Function):
    """A pass. Gradients that are not needed are not computed."""

    @staticmethod
    def forward(ctx, pass_name, convolution, left, right):
        ctx.pass_name, ctx.convolution = pass_name, convolution
        ctx.save_for_backward(left, right)
        result = convolution.compute(pass_name, left, right)
        # A view that a function made can't be changed in place, as by `outputs += x`.
        return result.detach() if result._is_view() else result

    @staticmethod
    def backward(ctx, cotangent):
        def run(pass_name, *operands):
            if torch_trace.lacks_rule():  # for a transform of the backward pass alone
                return ctx.convolution.by_stock.compute(pass_name, *operands)
            return Bilinear.apply(pass_name, ctx.convolution, *operands)

        needed = ctx.needs_input_grad[2:]
        operands = ctx.saved_tensors
        return None, None, *gradients(ctx.pass_name, operands, needed, cotangent, run)


DYNAMO = torch._C._dynamo.eval_frame
LEFT_ALONE = DYNAMO._FrameExecStrategy(*[DYNAMO._FrameAction.SKIP] * 2)
for _function in (Bilinear.forward, Bilinear.backward):
    DYNAMO.set_code_exec_strategy(_function.__code__, LEFT_ALONE)
"""In eager code after a graph break Dynamo would compile each Python function that is
called, and did so with `backward` for each layer until it gave up. The public way to
prevent it, `torch.compiler.disable`, imports Dynamo (seen in 2.13)."""


def native_input_gradient(forward, problem, kernel, output_gradient):
    pairs = problem.padding_pairs
    even = all(before == after for before, after in pairs)
    batch, channels, *spatial = channels_first_shape(
        problem.input_shape(output_gradient.shape[0]), problem
    )
    if not even:
        spatial = [n + sum(pair) for n, pair in zip(spatial, pairs, strict=True)]
    gradient = GRADIENTS_BY_INPUTS[problem.rank - 1](
        (batch, channels, *spatial),
        to_torch_kernel(kernel),
        to_channels_first(output_gradient, problem),
        **arguments(problem, even),
    )
    if not even:
        sizes = zip(pairs, problem.spatial_shape, strict=True)
        crop = [slice(before, before + n) for (before, _), n in sizes]
        gradient = gradient[(slice(None), slice(None), *crop)]
    return from_channels_first(gradient, problem)


def native_kernel_gradient(forward, problem, inputs, output_gradient):
    pairs = problem.padding_pairs
    even = all(before == after for before, after in pairs)
    inputs = to_channels_first(inputs, problem)
    if not even:
        widths = [n for pair in reversed(pairs) for n in pair]
        inputs = torch.nn.functional.pad(inputs, widths)
    shape = (problem.filters, problem.channels_per_group, *problem.kernel_size)
    gradient = GRADIENTS_BY_KERNEL[problem.rank - 1](
        inputs,
        shape,
        to_channels_first(output_gradient, problem),
        **arguments(problem, even),
    )
    return gradient.permute(*range(2, problem.rank + 2), 1, 0)


GRADIENTS_BY_INPUTS = (
    convolution_gradients.conv1d_input,
    convolution_gradients.conv2d_input,
    convolution_gradients.conv3d_input,
)
GRADIENTS_BY_KERNEL = (
    convolution_gradients.conv1d_weight,
    convolution_gradients.conv2d_weight,
    convolution_gradients.conv3d_weight,
)


def arguments(problem, even):
    padding = tuple(before if even else 0 for before, _ in problem.padding_pairs)
    return {
        "stride": problem.strides,
        "padding": padding,
        "dilation": problem.dilation_rate,
        "groups": problem.groups,
    }


def to_channels_first(tensor, problem):
    return tensor.movedim(-1, 1) if problem.data_format == "channels_last" else tensor


def from_channels_first(tensor, problem):
    return tensor.movedim(1, -1) if problem.data_format == "channels_last" else tensor


def channels_first_shape(shape, problem):
    if problem.data_format == "channels_first":
        return shape
    return shape[0], shape[-1], *shape[1:-1]


def to_torch_kernel(kernel):
    return kernel.permute(-1, -2, *range(kernel.ndim - 2))


native_conv = keras.ops.conv


def native_refusal(problem):
    return onednn.refusal(problem) if device().type == "cpu" else None


def sum_together(tensors, axis):
    return [torch.sum(tensor, axis) for tensor in tensors]


def must_run_native():
    """Under functorch's transforms, forward-mode derivatives, tracing and autocast."""
    return is_tracing() or torch_trace.is_transformed()


def is_tracing(*tensors):
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


python_trace = torch_trace
traces_python = torch.compiler.is_dynamo_compiling
"""Not wrapped, and not `is_compiling`, which would cost an eager call 0.7 µs more: an
export without Dynamo can read the memo."""

shape_of = operator.attrgetter("shape")


trace_key = torch.are_deterministic_algorithms_enabled
"""The precision flags apply to GPUs, where they are part of the key too, see below."""


@functools.cache
def device():
    """The device of Keras's tensors, for which plans are made."""
    return torch.device(keras_internals.default_torch_device())


def environment():
    versions = {"torch": torch.__version__}
    kind = name = device().type
    cores = None
    if kind == "cuda":
        kind, name = "gpu", torch.cuda.get_device_name()
        cores = torch.cuda.get_device_properties().multi_processor_count
        versions["cuda"] = str(torch.version.cuda)
        versions["cudnn"] = str(torch.backends.cudnn.version())
    return {
        "device_kind": kind,
        "device_name": name,
        "cores": cores,
        "compiler_mode": "eager",
        "flags": flags(),
        "versions": versions,
    }


def flags():
    """Settings that change precision or the choice of kernels."""
    flags = {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        flags.update(zip(GPU_FLAGS, torch_trace.cudnn_flags(), strict=True))
    return flags


def set_flags(flags):
    torch.use_deterministic_algorithms(flags["deterministic"])
    torch.set_num_threads(flags["threads"])
    for name in set(GPU_FLAGS) & set(flags):
        setattr(torch.backends.cudnn, name.removeprefix("cudnn_"), flags[name])


def child_variables():
    return {}


GPU_FLAGS = ("cudnn_allow_tf32", "cudnn_benchmark", "cudnn_deterministic")


if torch.cuda.is_available():

    def trace_key():
        return torch.are_deterministic_algorithms_enabled(), *torch_trace.cudnn_flags()


def canonical_dtype(dtype):
    return dtype


def accelerator_index():
    here = device()
    if here.type == "cpu":
        return None
    if here.type == "cuda" and here.index is None:
        return torch.cuda.current_device()
    return here.index or 0


def needs_other_processes(model):
    """False: the step of a model that is not wrapped does not."""
    return False


def compiler_mode_of(model):
    return torch_trace.MODE if model.jit_compile is True else "eager"


def batch_shards():
    return 1


def step_shards(model):
    return batch_shards()


COMPILED_FUNCTIONS = ()
TENSORS = (torch.Tensor,)
STATE = (torch.nn.Parameter,)
SHARED = (torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format)
PROXIES = FLAGS_OF_PROXIES = UNIQUE = ()
PLAIN = (torch.nn.Module, torch.optim.Optimizer)

OF_LEAVES = ("requires_grad", "grad", "_backward_hooks", "_post_accumulate_grad_hooks")


def tensor_copier():
    """Copies tensors; copies of tensors that share memory share memory too. A tensor
    that is not a leaf loses its history."""
    storages = {}

    def copied(tensor):
        plain = tensor.detach()
        if plain.layout is not torch.strided or plain.is_quantized or plain.is_meta:
            return copy.deepcopy(plain)
        storage = plain.untyped_storage()
        place = str(plain.device), storage.data_ptr()
        if not storage.data_ptr() or place not in storages:
            storages[place] = storage.clone()
        empty = torch.empty(0, dtype=plain.dtype, device=plain.device)
        shape = plain.storage_offset(), plain.size(), plain.stride()
        return empty.set_(storages[place], *shape)

    def copy_of(tensor):
        if isinstance(tensor, torch.nn.Parameter):
            return torch.nn.Parameter(copied(tensor), tensor.requires_grad)
        return copied(tensor)

    return copy_of


def tensor_attributes(tensor):
    if not tensor.is_leaf:
        return {}
    return {name: getattr(tensor, name) for name in OF_LEAVES}


def restored_tensor(tensor, copy, attributes):
    """The copy if the tensor's memory can't be written or has been replaced."""
    try:
        if tensor.shape != copy.shape or not torch.equal(tensor, copy):
            with torch.no_grad():
                tensor.copy_(copy)
    except RuntimeError:
        return copy
    vars(tensor).clear()
    for name, value in attributes.items():
        setattr(tensor, name, value)
    return tensor


def compiled_again(function, python_function):
    raise TypeError("it can't be compiled again")


def random_state():
    return torch.get_rng_state(), torch.cuda.get_rng_state_all()


def set_random_state(state):
    torch.set_rng_state(state[0])
    torch.cuda.set_rng_state_all(state[1])


def keys_of_tensor(tensor):
    return ()


def forget_compiled(function):
    """Dynamo guards on the class and the plan of each layer and on the dispatcher's
    edition, but outdated entries count towards its recompile limit per code object,
    which all layers share."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset_code_caches()


def synchronize(tensors):
    kind = device().type
    if kind != "cpu":
        getattr(torch, kind).synchronize()


def device_events():
    if device().type != "cuda":
        return None
    return [torch.cuda.Event(enable_timing=True) for _ in range(2)]


def compiled(function, compiler_mode):
    if compiler_mode == torch_trace.MODE:
        return inductor.compiled_whole(function)
    return function


def compiled_ahead(function, compiler_mode, shapes, dtype):
    """`compiled`, since torch compiles when the function is called."""
    return compiled(function, compiler_mode)


@functools.cache
def triton_refusal():
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return capability_refusal(compute_capability())


@functools.cache
def compute_capability():
    is_nvidia = device().type == "cuda" and torch.version.hip is None
    return torch.cuda.get_device_capability() if is_nvidia else None


def compile_kernel(launch, dtype):
    """In a separate process: torch finds the kernel in Triton's cache."""
    from keras_diagwise.algorithms.triton.launch import program_of
    from keras_diagwise.algorithms.triton.program import compile_apart

    if compute_capability() is not None:  # else it is interpreted
        major, minor = compute_capability()
        compile_apart(program_of(launch, dtype, 10 * major + minor))


def launched(launch, left, right):
    left, right = left.contiguous(), right.contiguous()
    dtype = getattr(torch, launch.dtype)
    result = torch.empty(launch.shape, dtype=dtype, device=left.device)
    with torch.cuda.device_of(left):
        aligned = (left.data_ptr() | right.data_ptr()) % ALIGNMENT == 0
        run = held_kernel(launch, left.dtype, left.get_device(), aligned)
        run(left, right, *launch.sizes, result)
    return result


ALIGNMENT = 16
"""Bytes: Triton compiles a separate program for operands that are so aligned."""


@functools.lru_cache(maxsize=4096)
def held_kernel(launch, dtype, device, aligned):
    """A function that runs a kernel on the operands and sizes of a launch. Triton looks
    a program up by all arguments in each launch; here that is done once, for a device
    that must be the current one."""
    import triton

    from keras_diagwise.algorithms.triton import kernels

    function = getattr(kernels, launch.kernel)
    constants = dict(launch.constants)
    options = {"num_warps": WARPS, "num_stages": 1}
    if not (aligned and isinstance(function, triton.JITFunction)):
        return functools.partial(function[launch.programs,], **constants, **options)
    operands = dtype, dtype, *launch.sizes, getattr(torch, launch.dtype)
    grid = launch.programs, 1, 1
    run = function.warmup(*operands, grid=grid, **constants, **options)[grid]
    compiled_in = [constants[name] for name in function.arg_names if name in constants]
    return lambda *operands: run(*operands, *compiled_in)


def compiles_alone_refusal():
    return None


HAS_XLA = False
COMPILES_ALONE = torch.cuda.is_available()
"""Not on CPUs: Inductor takes seconds to compile each pass, in each first step, and it
has not been measured on a quiet machine since `direct` was rewritten."""
MATMUL_KEEPS_AXES = False


def compiled_alone(function):
    return inductor.compiled_with_fallback(function) if COMPILES_ALONE else function
