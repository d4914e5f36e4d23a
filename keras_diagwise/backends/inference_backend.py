"""numpy and OpenVINO: they do not train, and every call is the stock one."""

from __future__ import annotations

import importlib.metadata
import operator

import keras

TENSORS = STATE = SHARED = PLAIN = PROXIES = FLAGS_OF_PROXIES = UNIQUE = ()
COMPILED_FUNCTIONS = ()
HAS_XLA = False
COMPILES_ALONE = False
MATMUL_KEEPS_AXES = False
python_trace = None

native_conv = keras.ops.conv
shape_of = operator.attrgetter("shape")


def differentiable(convolution, inputs, kernel):
    raise NotImplementedError(f"the backend {keras.backend.backend()} trains nothing")


def traces_python():
    return True


def canonical_dtype(dtype):
    return dtype


def trace_key():
    return ()


def must_run_native():
    return True


def is_tracing(*tensors):
    return False


def native_refusal(problem):
    return None


def flags():
    return {}


def set_flags(flags):
    """Does nothing: there are none."""


def child_variables():
    return {}


def environment():
    backend = keras.backend.backend()
    return {
        "device_kind": "cpu",
        "device_name": "cpu",
        "compiler_mode": "inference",
        "flags": flags(),
        "versions": {backend: importlib.metadata.version(backend)},
    }


def accelerator_index():
    return None


def needs_other_processes(model):
    return False


def compiler_mode_of(model):
    return "inference"


def batch_shards():
    return 1


def step_shards(model):
    return batch_shards()


def forget_compiled(function):
    """Does nothing: nothing is compiled."""


def keys_of_tensor(tensor):
    return ()


def triton_refusal():
    return "it is for JAX and torch"


def compiles_alone_refusal():
    return None


def tensor_copier():
    return lambda tensor: tensor


def tensor_attributes(tensor):
    return {}


def restored_tensor(tensor, copy, attributes):
    return tensor


def compiled_again(function, python_function):
    raise TypeError("it can't be compiled again")


def random_state():
    return None


def set_random_state(state):
    """Does nothing: the caller restores numpy's own."""
