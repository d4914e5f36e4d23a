"""JAX: the passes as three bilinear primitives, which transpose each other."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import operator
import os
import threading
from typing import NamedTuple

import jax
import keras
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from keras_diagwise.backends.keras_internals import is_exporting
from keras_diagwise.backends.transposition import transpose_left, transpose_right
from keras_diagwise.backends.triton import WARPS, capability_refusal
from keras_diagwise.problem import PASSES
from keras_diagwise.version import release

# Before 0.8 it is experimental.
enable_x64 = (jax if hasattr(jax, "enable_x64") else jax.experimental).enable_x64


def differentiable(convolution, inputs, kernel):
    """Without the primitives in an export by Keras: the conversion to ONNX lacks them
    (jax2onnx 0.17)."""
    if isinstance(inputs, jax.core.Tracer) and is_exporting():
        return convolution.to_export.compute("forward", inputs, kernel)
    numerics = Numerics(
        jax.config.jax_default_matmul_precision,
        jax.config.jax_enable_x64 or inputs.dtype == "float64",
    )
    return bind("forward", inputs, kernel, convolution=convolution, numerics=numerics)


def bind(pass_name, left, right, **parameters):
    """Calls a primitive.

    Args:
        pass_name: the pass.
        left, right: its operands.
        **parameters: `convolution`, and the `Numerics` of the call.
    """
    return PRIMITIVES[pass_name].bind(left, right, **parameters)


class Numerics(NamedTuple):
    """JAX's settings where a call was traced. They hold wherever its passes, and so its
    gradients, are compiled.

    Attributes:
        precision: the precision of products.
        x64: whether there are 64-bit types, as there are for such operands.
    """

    precision: str | None
    x64: bool

    @contextlib.contextmanager
    def scope(self):
        with jax.default_matmul_precision(self.precision), enable_x64(self.x64):
            yield


PARAMETERS = ("convolution", "numerics")


def make_primitive(pass_name: str) -> Primitive:
    primitive = Primitive(f"diagonalwise_{pass_name}")

    @jax.named_scope(primitive.name)  # operations of a unit lack the layer's name
    def compute(left, right, *, convolution, numerics):
        with numerics.scope():
            return convolution.compute(pass_name, left, right)

    jitted = jax.jit(compute, static_argnames=PARAMETERS)

    def abstract(left, right, *, convolution, numerics):
        shape = convolution.result_shape(pass_name, left.shape, right.shape)
        return jax.core.ShapedArray(shape, left.dtype)

    def batch(operands, axes, *, convolution, numerics):
        left, right = operands
        folded = folded_operand(pass_name)
        if folded is not None and axes[1 - folded] is None:
            moved = jax.numpy.moveaxis(operands[folded], axes[folded], 0)
            merged = jax.numpy.reshape(moved, (-1, *moved.shape[2:]))
            pair = (merged, right) if folded == 0 else (left, merged)
            result = bind(pass_name, *pair, convolution=convolution, numerics=numerics)
            return jax.numpy.reshape(result, (*moved.shape[:2], *result.shape[1:])), 0
        plain = functools.partial(
            compute, convolution=convolution.without_kernels, numerics=numerics
        )
        return jax.vmap(plain, in_axes=axes)(left, right), 0

    def compute_apart(left, right, **parameters):
        result = jitted(left, right, **parameters)
        return set_xla_metadata(result, compilation_unit=primitive.name)

    lower = mlir.lower_fun(compute, multiple_results=False)
    lower_apart = mlir.lower_fun(compute_apart, multiple_results=False)

    def lower_for(context, *operands, convolution, numerics):
        module = context.module_context
        if module.lowering_parameters.for_export:
            convolution = convolution.to_export
        elif convolution.is_kernel(pass_name):
            if not runs_kernels(module):
                convolution = convolution.without_kernels
        elif (
            HAS_UNITS
            and is_for_one_cpu(module)
            and not convolution.is_native(pass_name)
        ):
            return lower_apart(
                context, *operands, convolution=convolution, numerics=numerics
            )
        return lower(context, *operands, convolution=convolution, numerics=numerics)

    jitted_primitive = jax.jit(primitive.bind, static_argnames=PARAMETERS)

    def run(left, right, *, convolution, numerics):
        is_lowered = convolution.is_kernel(pass_name) and not jax.config.jax_disable_jit
        function = jitted_primitive if is_lowered else jitted
        return function(left, right, convolution=convolution, numerics=numerics)

    primitive.def_impl(run)
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, lower_for)
    batching.primitive_batchers[primitive] = batch
    return primitive


HAS_UNITS = "x" in inspect.signature(set_xla_metadata).parameters
"""Whether a value can be marked as part of a compilation unit: not in 0.6.2, the latest
for Python 3.10, where each layer's pass is compiled separately."""


def is_for_one_cpu(module) -> bool:
    """Whether a program is for one CPU device, outside `pmap` and `shard_map`: there
    each pass of a problem is a compilation unit, which XLA optimizes once for all its
    layers, and fuses with nothing else.

    NASNetMobile's step, with 480 passes, 69 of them distinct, compiles in 0.6 of the
    time, needs 35 MiB less, and is no slower; nor are those of MobileNetV2 and
    ConvNeXtTiny (jaxlib 0.10.2). On several devices XLA must see the whole program to
    partition it.
    """
    devices = getattr(module.axis_context, "num_devices", None)
    return tuple(module.platforms) == ("cpu",) and devices == 1


def runs_kernels(module) -> bool:
    """Whether a program is for one NVIDIA GPU: several would gather a kernel's operands
    (seen in 0.11.2)."""
    devices = getattr(module.axis_context, "num_devices", None)
    return tuple(module.platforms) == ("cuda",) and devices == 1


def folded_operand(pass_name: str) -> int | None:
    """The operand whose mapped axis can be merged into the batch axis."""
    return {"forward": 0, "input_gradient": 1}.get(pass_name)


def define_transposes(pass_name: str, primitive: Primitive) -> None:
    def left_rule(cotangent, left, right, **parameters):
        transposed, *operands = transpose_left(pass_name, cotangent, right)
        return bind(transposed, *operands, **parameters)

    def right_rule(cotangent, left, right, **parameters):
        transposed, *operands = transpose_right(pass_name, cotangent, left)
        return bind(transposed, *operands, **parameters)

    ad.defbilinear(primitive, left_rule, right_rule)


PRIMITIVES = {pass_name: make_primitive(pass_name) for pass_name in PASSES}
for _pass_name, _primitive in PRIMITIVES.items():
    define_transposes(_pass_name, _primitive)


def native_input_gradient(forward, problem, kernel, output_gradient):
    shape = problem.input_shape(output_gradient.shape[0])
    inputs = jax.ShapeDtypeStruct(shape, output_gradient.dtype)
    transpose = jax.linear_transpose(lambda x: forward(problem, x, kernel), inputs)
    return transpose(output_gradient)[0]


def native_kernel_gradient(forward, problem, inputs, output_gradient):
    kernel = jax.ShapeDtypeStruct(problem.kernel_shape, inputs.dtype)
    transpose = jax.linear_transpose(lambda k: forward(problem, inputs, k), kernel)
    return transpose(output_gradient)[0]


native_conv = keras.ops.conv


def native_refusal(problem):
    return None


def sum_together(tensors, axis):
    """One reduction of several operands: one pass, one fused loop."""
    zeros = tuple(jax.numpy.zeros((), tensor.dtype) for tensor in tensors)

    def add(left, right):
        return tuple(a + b for a, b in zip(left, right, strict=True))

    return jax.lax.reduce(tuple(tensors), zeros, add, (axis,))


def traces_python():
    return False


python_trace = None


def is_tracing(*tensors):
    """In `jit` a call with constant operands is traced too; then a new array is a
    tracer."""
    tensors = (*tensors, jax.numpy.zeros(()))
    return any(isinstance(tensor, jax.core.Tracer) for tensor in tensors)


def must_run_native():
    """In `shard_map` and under meshes with explicit axes.

    There the type of a value has the axes over which it varies or its sharding, in a
    way that changed from version to version (seen in 0.10.2).
    """
    types = jax.sharding.get_abstract_mesh().axis_types
    return any(axis != jax.sharding.AxisType.Auto for axis in types)


shape_of = operator.attrgetter("shape")


def trace_key():
    return (
        jax.default_backend(),
        keras.distribution.distribution(),
        jax.config.jax_default_matmul_precision,
        jax.config.jax_enable_x64,
    )


def canonical_dtype(dtype):
    """float32 for float64 without 64-bit types."""
    return jax.dtypes.canonicalize_dtype(dtype).name


def flags():
    return {"matmul_precision": jax.config.jax_default_matmul_precision}


def set_flags(flags):
    jax.config.update("jax_default_matmul_precision", flags["matmul_precision"])


def child_variables():
    return {
        "JAX_ENABLE_X64": str(int(jax.config.jax_enable_x64)),
        "JAX_PLATFORMS": jax.default_backend(),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


def environment():
    device = jax.local_devices()[0]
    versions = {"jax": jax.__version__, "jaxlib": jax.lib.__version__}
    if device.platform != "cpu":  # the driver's and the libraries'
        versions["platform"] = " ".join(device.client.platform_version.split())
    return {
        "device_kind": device.platform,
        "device_name": device.device_kind,
        "cores": cores_of(device),
        "compiler_mode": "xla",
        "flags": flags(),
        "versions": versions,
    }


def cores_of(device):
    """The cores of a GPU or a TPU, which have different names, or `None`."""
    if device.platform == "cpu":
        return None
    return getattr(device, "core_count", None) or getattr(device, "num_cores", None)


def accelerator_index():
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return None
    index = getattr(device, "local_hardware_id", None)
    return device.id if index is None else index


def needs_other_processes(model):
    return jax.process_count() > 1


def compiler_mode_of(model):
    return "xla"


def batch_shards():
    distribution = keras.distribution.distribution()
    if distribution is None:
        return 1
    mesh, axis = distribution.device_mesh, distribution.batch_dim_name
    return dict(zip(mesh.axis_names, mesh.shape, strict=True)).get(axis, 1)


def step_shards(model):
    return batch_shards()


COMPILED_FUNCTIONS = (type(jax.jit(len)),)  # `jax.stages.Wrapped` takes 30 µs a check
TENSORS = (jax.Array,)
STATE = ()
SHARED = (
    *(jax.core.Tracer, jax.Device, jax.sharding.Sharding, jax.sharding.Mesh),
    type(jax.tree_util.tree_structure(0)),
)
PROXIES = FLAGS_OF_PROXIES = UNIQUE = ()
PLAIN = ()


def tensor_copier():
    """Copies immutable arrays too, since Keras's steps donate their operands."""
    return lambda tensor: tensor if tensor.is_deleted() else tensor.copy()


def tensor_attributes(tensor):
    return {}


def restored_tensor(tensor, copy, attributes):
    return copy


def compiled_again(function, python_function):
    raise TypeError("jax.jit does not tell how it was compiled")


def random_state():
    return None


def set_random_state(state):
    """Does nothing: JAX has no global generator."""


def keys_of_tensor(tensor):
    return ()


def forget_compiled(function):
    jax.jit(function).clear_cache()  # type: ignore[attr-defined]


def synchronize(tensors):
    jax.block_until_ready(tensors)


def device_events():
    return None


def compiled(function, compiler_mode):
    return jax.jit(function)


def compiled_ahead(function, compiler_mode, shapes, dtype):
    operands = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    return jax.jit(function).lower(*operands).compile()


@functools.cache
def triton_refusal():
    if not all(map(importlib.util.find_spec, ("triton", "jax_triton"))):
        return "jax-triton is not installed"
    return capability_refusal(compute_capability())


@functools.cache
def compute_capability():
    """The first device's, as `(8, 0)`, or `None` if it is not an NVIDIA GPU."""
    found = getattr(jax.local_devices()[0], "compute_capability", "")
    return release(found) or None


IMPORTING = threading.Lock()


@functools.cache
def jax_triton():
    """jax-triton; its import changes the variable of Triton's cache, restored here."""
    with IMPORTING:
        cache = os.environ.get("TRITON_CACHE_DIR")
        try:
            return importlib.import_module("jax_triton")
        finally:
            if cache is None:
                os.environ.pop("TRITON_CACHE_DIR", None)
            else:
                os.environ["TRITON_CACHE_DIR"] = cache


def launched(launch, left, right):
    from keras_diagwise.algorithms.triton import kernels

    major, minor = compute_capability()
    return jax_triton().triton_call(
        left,
        right,
        *launch.sizes,
        kernel=getattr(kernels, launch.kernel),
        out_shape=jax.ShapeDtypeStruct(launch.shape, launch.dtype),
        grid=(launch.programs,),
        num_warps=WARPS,
        num_stages=1,
        compute_capability=10 * major + minor,
        **dict(launch.constants),
    )


def compile_kernel(launch, dtype):
    """Does nothing: a kernel is compiled when a program with it is lowered."""


def compiles_alone_refusal():
    return None


HAS_XLA = True
COMPILES_ALONE = False
MATMUL_KEEPS_AXES = True


def compiled_alone(function):
    """The function itself, since its caller is compiled."""
    return function
