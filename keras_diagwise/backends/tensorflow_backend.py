"""TensorFlow: each pass a custom gradient, with the other passes as gradients."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

import keras
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.eager.forwardprop_util import pack_tangents
from tensorflow.python.framework import config as tf_config
from tensorflow.python.framework.op_callbacks import should_invoke_op_callbacks
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from keras_diagwise.backends import keras_internals, onednn
from keras_diagwise.backends.keras_internals import is_exporting
from keras_diagwise.backends.tensorflow_state import (  # noqa: F401 (the backend's)
    FLAGS_OF_PROXIES,
    PLAIN,
    PROXIES,
    SHARED,
    STATE,
    TENSORS,
    UNIQUE,
    compiled_again,
    keys_of_tensor,
    random_state,
    restored_tensor,
    set_random_state,
    tensor_attributes,
    tensor_copier,
)
from keras_diagwise.backends.transposition import transpose_left, transpose_right


def differentiable(convolution, inputs, kernel):
    if not tf.executing_eagerly() and is_exporting():
        convolution = convolution.to_export
    return bilinear(
        "forward",
        convolution,
        tf.convert_to_tensor(inputs),
        tf.convert_to_tensor(kernel),
    )


def bilinear(pass_name, convolution, left, right):
    @tf.custom_gradient
    def compute(left, right):
        if not tf.executing_eagerly():  # the gradients hold what this graph captures
            left, right = tf.identity(left), tf.identity(right)
        result = computed(pass_name, convolution, left, right)

        def gradients(cotangent):
            by_left = transpose_left(pass_name, cotangent, right)
            by_right = transpose_right(pass_name, cotangent, left)
            return tuple(
                bilinear(transposed, convolution, *operands)
                for transposed, *operands in (by_left, by_right)
            )

        return result, gradients

    return compute(left, right)


def computed(pass_name, convolution, left, right):
    """A pass. Where a graph leaves the batch open it may be empty in a call, as on a
    replica that is left without images, and not every algorithm can compute that."""
    if (
        convolution.problem.batch is not None
        or takes_empty(pass_name, convolution)
        or pack_tangents([left, right]).tangents  # lost in a condition (seen in 2.21)
    ):
        return convolution.compute(pass_name, left, right)
    batch = tf.shape(right if pass_name == "input_gradient" else left)[0]
    shape = convolution.result_shape(pass_name, (0,), (0,))
    return tf.cond(
        batch > 0,
        lambda: convolution.compute(pass_name, left, right),
        lambda: tf.zeros(shape, left.dtype),
    )


def takes_empty(pass_name, convolution):
    """Whether a pass takes an empty batch. XLA leaves out what is empty, and an
    exported pass need not take it."""
    if compiler_mode() == "xla" or is_exporting():
        return True
    empty = dataclasses.replace(convolution.problem, batch=0)
    return convolution.algorithm(pass_name).refusal(empty) is None


def native_input_gradient(forward, problem, kernel, output_gradient):
    inputs = tf.zeros(
        problem.input_shape(tf.shape(output_gradient)[0]), output_gradient.dtype
    )
    return gradient_of(lambda x: forward(problem, x, kernel), inputs, output_gradient)


def native_kernel_gradient(forward, problem, inputs, output_gradient):
    """Zero for an empty batch, for which TensorFlow returns uninitialized memory (seen
    in 2.21)."""
    kernel = tf.zeros(problem.kernel_shape, inputs.dtype)
    if inputs.shape[0] == 0:
        return kernel
    return gradient_of(lambda k: forward(problem, inputs, k), kernel, output_gradient)


def gradient_of(function, operand, output_gradient):
    """In a separate graph if no tape records, as in eager code while a
    `ForwardAccumulator` differentiates what it has recorded (seen in 2.21)."""
    with tf.GradientTape() as tape:
        tape.watch(operand)
        outputs = function(operand)
    gradient = tape.gradient(outputs, operand, output_gradient)
    if gradient is not None:
        return gradient

    @tf.function(autograph=False)
    def in_a_graph(operand, output_gradient):
        return tf.gradients(function(operand), operand, output_gradient)[0]

    return in_a_graph(operand, output_gradient)


def native_conv(inputs, kernel, strides, padding, data_format, dilation_rate):
    """By TensorFlow's depthwise operation where that applies: Keras compiles every
    grouped convolution by XLA within the graph instead (seen in Keras 3.15.1)."""
    if is_depthwise(inputs, kernel, strides, data_format):
        shape = kernel.shape
        multiplier = shape[-1] // inputs.shape[channel_axis(data_format)]
        depthwise = tf.reshape(
            tf.convert_to_tensor(kernel), (*shape[:-2], -1, multiplier)
        )
        return keras.ops.depthwise_conv(
            inputs, depthwise, strides, padding, data_format, dilation_rate
        )
    return keras.ops.conv(inputs, kernel, strides, padding, data_format, dilation_rate)


def channel_axis(data_format):
    return -1 if data_format == "channels_last" else 1


def is_depthwise(inputs, kernel, strides, data_format):
    """Whether the call is a convolution that `tf.nn.depthwise_conv2d` can compute."""
    if isinstance(inputs, keras.KerasTensor) or isinstance(kernel, keras.KerasTensor):
        return False
    equal = not isinstance(strides, Iterable) or len(set(strides)) == 1
    channels = inputs.shape[channel_axis(data_format)]
    flat = len(kernel.shape) in (3, 4) and len(inputs.shape) == len(kernel.shape)
    several = channels is not None and channels > 1
    is_known = None not in tuple(kernel.shape)
    return flat and equal and several and is_known and kernel.shape[-2] == 1


def native_refusal(problem):
    """The limits of `tf.nn`, where Keras does not lift them. Seen in 2.21."""
    depthwise = problem.is_depthwise and problem.rank < 3
    if depthwise and len(set(problem.strides)) > 1:
        return "TensorFlow's depthwise convolution takes equal strides only"
    if problem.groups > 1 and not depthwise and compiles_alone_refusal():
        return compiles_alone_refusal()  # Keras compiles it by XLA
    if problem.batch == 0:
        return "TensorFlow's convolutions give an empty batch back as it is"
    if depthwise:
        return keras_internals.depthwise_refusal(problem, bool(list_gpus()))
    if max(problem.strides) > 1 and max(problem.dilation_rate) > 1:
        return "TensorFlow's convolution takes no dilation with strides"
    if problem.groups > 1 or list_gpus():
        return None
    if problem.data_format != "channels_last":
        return "TensorFlow's convolution takes channels last only on CPU"
    if problem.rank == 3 and problem.padding == "same" and leaves_out_pixels(problem):
        return "TensorFlow errs where a padded volume's last pixels meet no tap"
    return onednn.refusal(problem)


def leaves_out_pixels(problem):
    """Whether strides larger than the kernel would make the padding of `"same"`
    negative: on CPU the forward pass then starts that much too late (seen in 2.21)."""
    return any(each is not None and each < 0 for each in problem.overhangs)


@functools.cache
def list_gpus():
    return tf.config.list_logical_devices("GPU")


def first_gpu():
    """The first GPU that the program sees, on which it computes, or `None`."""
    return tf.config.get_visible_devices("GPU")[0] if list_gpus() else None


def sum_together(tensors, axis):
    """Under XLA, one reduction of several operands: one pass, one fused loop."""
    if compiler_mode() != "xla":
        return [tf.reduce_sum(tensor, axis) for tensor in tensors]
    scalar = tf.TensorSpec((), tensors[0].dtype)

    @tf.function(input_signature=[scalar] * (2 * len(tensors)), autograph=False)
    def add(*operands):
        half = len(tensors)
        return [a + b for a, b in zip(operands[:half], operands[half:], strict=True)]

    return xla.variadic_reduce(
        tensors,
        [tf.zeros((), tensor.dtype) for tensor in tensors],
        [axis],
        add.get_concrete_function(),
    )


def traces_python():
    return False


python_trace = None


def is_tracing(*tensors):
    return not tf.executing_eagerly()


def must_run_native():
    return False


def compiler_mode() -> str:
    """`"eager"`, `"graph"`, `"xla"` or, in an export by Keras, `"export"`.

    Only a private function reports that a graph is traced for XLA. Seen in 2.21.
    """
    if tf.executing_eagerly():
        return "eager"
    if is_exporting():
        return "export"
    graph = tf.compat.v1.get_default_graph()
    return "xla" if GraphOrParentsInXlaContext(graph) else "graph"


def trace_key():
    mode = "eager" if executing_eagerly() else compiler_mode()
    watched = bool(should_invoke_op_callbacks())  # a list, if it is empty
    return mode, tensor_float_32_enabled(), determinism_enabled(), watched


executing_eagerly = tf.executing_eagerly
tensor_float_32_enabled = tf.config.experimental.tensor_float_32_execution_enabled
determinism_enabled = tf_config.is_op_determinism_enabled
"""The last is private: determinism can be set but not read publicly. Seen in 2.21."""


def canonical_dtype(dtype):
    return dtype


Eager = tf.__internal__.EagerTensor
"""The type of `tf.zeros(())`, without making a tensor at import: that would initialize
the devices, which a user may want, or with a multi-worker strategy must, configure."""


def shape_of(tensor):
    """As a tuple where that is faster: a `TensorShape` takes 3 µs to make, hash and
    compare, and the faster attributes are private in an eager tensor (seen in 2.21) and
    in a variable of Keras (seen in 3.15)."""
    kind = type(tensor)
    if kind is Eager:
        return tensor._shape_tuple()
    return tensor._shape if kind is keras.Variable else tensor.shape


def flags():
    """Settings that change precision or the choice of kernels."""
    return {
        "tensor_float_32": tensor_float_32_enabled(),
        "deterministic": determinism_enabled(),
    }


def set_flags(flags):
    tf.config.experimental.enable_tensor_float_32_execution(flags["tensor_float_32"])
    if flags["deterministic"]:
        tf.config.experimental.enable_op_determinism()


def child_variables():
    return {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def environment():
    kind, name = "cpu", "cpu"
    versions = {"tensorflow": tf.__version__}
    device = first_gpu()
    if device:
        build = tf.sysconfig.get_build_info()
        kind = "gpu"
        details = tf.config.experimental.get_device_details(device)
        name = details.get("device_name", "gpu")
        versions["cuda"] = str(build.get("cuda_version"))
        versions["cudnn"] = str(build.get("cudnn_version"))
    return {
        "device_kind": kind,
        "device_name": name,
        "compiler_mode": compiler_mode(),
        "flags": flags(),
        "versions": versions,
    }


def accelerator_index():
    device = first_gpu()
    return device and tf.config.list_physical_devices("GPU").index(device)


def needs_other_processes(model):
    several = (
        tf.distribute.MultiWorkerMirroredStrategy,
        tf.distribute.ParameterServerStrategy,
        tf.distribute.TPUStrategy,
    )
    return isinstance(model.distribute_strategy, several)


def compiler_mode_of(model):
    if model.run_eagerly:
        return "eager"
    return "xla" if model.jit_compile is True else "graph"


def batch_shards():
    """1: under `tf.distribute`, a trace is that of a replica."""
    return 1


def step_shards(model):
    """The replicas of a model's strategy, or of the current one."""
    strategy = (
        getattr(model, "distribute_strategy", None) or tf.distribute.get_strategy()
    )
    return strategy.num_replicas_in_sync


COMPILED_FUNCTIONS = (tf.types.experimental.PolymorphicFunction,)


def forget_compiled(function):
    """Does nothing: each `tf.function` holds its own traces."""


def synchronize(tensors):
    tf.test.experimental.sync_devices()


def device_events():
    return None


def compiled(function, compiler_mode):
    if compiler_mode == "eager":
        return function
    xla_compiled = compiler_mode == "xla"
    return tf.function(function, jit_compile=xla_compiled, autograph=False)


def compiled_ahead(function, compiler_mode, shapes, dtype):
    """`compiled`, since a function is traced when it is called."""
    return compiled(function, compiler_mode)


HAS_XLA = True
COMPILES_ALONE = True
MATMUL_KEEPS_AXES = False


def triton_refusal():
    return "it is for JAX and torch"


def compute_capability():
    return None


def launched(launch, left, right):
    raise NotImplementedError


def compile_kernel(launch, dtype):
    raise NotImplementedError


def compiles_alone_refusal():
    """Under `tf.debugging.enable_check_numerics` and the like, which insert operations
    without XLA kernels into compiled functions too. Only a private function reports
    whether they are active. Seen in 2.21."""
    if should_invoke_op_callbacks():
        return "TensorFlow watches each operation, which XLA does not support"
    return None


def compiled_alone(function):
    """Its operands are constants to a tape: otherwise a tape around a call would have
    the loops of `function` compiled for their derivative, which XLA refuses, and which
    is not needed, since each pass has its own. In forward mode, where a graph takes
    tangents from each operation, `function` runs as it is; only a private function
    reports that mode. Seen in 2.21.
    """
    compiled = tf.function(function, jit_compile=True, autograph=False)

    def run(*operands):
        if pack_tangents(operands).tangents:
            return function(*operands)
        return compiled(*map(tf.stop_gradient, operands))

    return run
