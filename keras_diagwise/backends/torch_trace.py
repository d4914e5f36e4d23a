"""`torch.compile`: the package's interface to Dynamo, which traces Python code."""

from __future__ import annotations

import operator

import torch
from torch.autograd import forward_ad

from keras_diagwise.backends import keras_internals
from keras_diagwise.backends.transposition import gradients

MODE = "inductor"

HOME = keras_internals.default_torch_device().partition(":")[0]
"""The kind of device of Keras's tensors."""

AUTOCAST = (
    *("cpu", "cuda"),
    *(["mps"] if torch.backends.mps.is_available() else []),
    *(["xpu"] if torch.xpu.is_available() else []),
)
"""Kinds of devices whose operations may be under autocast."""


def constant(function):
    """Equals `torch.compiler.assume_constant_result`, which imports Dynamo: a second of
    each start (seen in 2.13)."""
    function._dynamo_marked_constant = True
    return function


def sizes(tensor):
    from torch.fx.experimental.symbolic_shapes import has_static_value  # takes 0.3 s

    return tuple(
        [operator.index(n) if has_static_value(n) else None for n in tensor.shape]
    )


def is_open(*values):
    """Whether the trace leaves a number open, or one in a tuple, as it may leave all
    under `dynamic=True`."""
    from torch.fx.experimental.symbolic_shapes import has_static_value

    for value in values:
        numbers = value if isinstance(value, tuple | list) else (value,)
        for number in numbers:
            if isinstance(number, int) and not has_static_value(number):
                return True
    return False


def state():
    """State that Dynamo does not guard by default, but does once traced code reads it:
    the level of forward-mode derivatives, and flags on which a plan depends."""
    # Not the comparison itself, which `dynamic=True` leaves open too.
    mode = "forward" if forward_ad._current_level >= 0 else "reverse"
    return (
        mode,
        torch.are_deterministic_algorithms_enabled(),
        *cudnn_flags_in_trace(),
    )


def cudnn_flags_in_trace():
    """`cudnn_flags`, which Dynamo then guards. Of TF32 it can read the old setting
    alone, which raises an error where the new ones differ from it or each other: that
    is then not guarded, nor later in the program."""
    cudnn = torch.backends.cudnn
    allows_tf32 = cudnn.allow_tf32 if has_one_tf32() else convolutions_allow_tf32()
    return allows_tf32, cudnn.benchmark, cudnn.deterministic


def cudnn_flags():
    """Settings that change precision or the choice of kernels on a GPU."""
    cudnn = torch.backends.cudnn
    return convolutions_allow_tf32(), cudnn.benchmark, cudnn.deterministic


@constant
def convolutions_allow_tf32():
    """Whether convolutions run in TF32 on a GPU."""
    cudnn = torch.backends.cudnn
    if not hasattr(cudnn, "conv"):  # before torch 2.9
        return cudnn.allow_tf32
    return cudnn.conv.fp32_precision == "tf32"


@constant
def has_one_tf32():
    """Whether all of cuDNN has one setting of TF32, in torch's old words and its new
    ones."""
    try:
        torch.backends.cudnn.allow_tf32  # noqa: B018
    except RuntimeError:
        return False
    return True


def must_run_native():
    """Also in a trace for export."""
    is_jit = torch.jit.is_tracing()
    return torch.compiler.is_exporting() or is_jit or is_transformed()


def is_transformed():
    """Whether stock's operation must run: autocast chooses dtypes by the operation that
    it sees, and some transforms have no rule for an autograd function."""
    return any(map(torch.is_autocast_enabled, AUTOCAST)) or lacks_rule()


def lacks_rule():
    """Whether functorch's transforms or forward-mode derivatives are active: an
    autograd function has no rule for them unless it gives up reverse mode of every
    order; both are detected only by private functions, seen in 2.13."""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


def is_elsewhere():
    """Whether operands are moved to another device than Keras's, for which plans are
    made, as in a `keras.device`."""
    return keras_internals.current_torch_device().partition(":")[0] != HOME


def differentiable(name, inputs, kernel):
    return torch.ops.keras_diagwise.convolve(inputs, kernel, "forward", name)


def define_operator(convolution_of):
    """An operator that Dynamo keeps whole in its graph. When derivatives are added to
    the graph, it is decomposed into operations that the compiler fuses; only a kernel
    stays whole.

    The decomposition is that of `torch.library.triton_op` (seen in 2.13).
    """
    from torch._subclasses.functional_tensor import FunctionalTensorMode

    def compute(left, right, pass_name, name):
        return convolution_of(name).compute(pass_name, left, right)

    @torch.library.custom_op("keras_diagwise::convolve", mutates_args=())
    def convolve(
        left: torch.Tensor, right: torch.Tensor, pass_name: str, name: str
    ) -> torch.Tensor:
        return compute(left, right, pass_name, name).contiguous()

    @convolve.register_fake
    def _(left, right, pass_name, name):
        convolution = convolution_of(name)
        return left.new_empty(
            convolution.result_shape(pass_name, left.shape, right.shape)
        )

    @convolve.register_torch_dispatch(FunctionalTensorMode)
    def _(mode, operator, types, operands, options):
        pass_name, name = operands[2:]
        if convolution_of(name).is_kernel(pass_name):
            return mode.__torch_dispatch__(operator, types, operands, options)
        with mode:
            return compute(*operands)

    def save(ctx, inputs, output):
        left, right, ctx.pass_name, ctx.name = inputs
        ctx.save_for_backward(left, right)

    def backward(ctx, cotangent):
        def run(pass_name, *operands):
            return convolve(*operands, pass_name, ctx.name)

        operands, needed = ctx.saved_tensors, ctx.needs_input_grad[:2]
        found = gradients(ctx.pass_name, operands, needed, cotangent, run)
        return *found, None, None

    convolve.register_autograd(backward, setup_context=save)
    return convolve
