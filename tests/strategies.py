"""Problems, tensors and plans for hypothesis to draw."""

import keras
import ml_dtypes
import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from keras_diagwise.problem import Problem
from keras_diagwise.tuner.float64_passes import OPERANDS

NUMPY_DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}


@st.composite
def problems(
    draw,
    ranks=(1, 2, 3),
    dtypes=tuple(NUMPY_DTYPES),
    depthwise=None,
    groups=None,
):
    """A problem that has an output, possibly with an empty batch."""
    rank = draw(st.sampled_from(ranks))
    most = {1: 12, 2: 8, 3: 5}[rank]

    def sizes(low, high):
        return st.tuples(*[st.integers(low, high)] * rank)

    if depthwise is None:
        depthwise = draw(st.booleans())
    problem = Problem(
        batch=draw(st.sampled_from([1, 2, 3, 0])),
        spatial_shape=draw(sizes(1, most)),
        groups=draw(groups or st.integers(1, 6)),
        channels_per_group=1 if depthwise else draw(st.integers(1, 3)),
        filters_per_group=draw(st.integers(1, 3)),
        kernel_size=draw(sizes(1, 7 if rank < 3 else 3)),
        strides=draw(st.one_of(st.just((1,) * rank), sizes(1, 3))),
        padding=draw(st.sampled_from(["same", "valid"])),
        dilation_rate=draw(st.one_of(st.just((1,) * rank), sizes(1, 3))),
        data_format=draw(st.sampled_from(["channels_last", "channels_first"])),
        dtype=draw(st.sampled_from(dtypes)),
    )
    assume(0 not in problem.output_spatial_shape)
    return problem


def tensors(problem, seed=0):
    """Inputs, kernel and output gradient of a problem, in its dtype."""
    generator = np.random.default_rng(seed)
    shapes = (problem.input_shape(), problem.kernel_shape, problem.output_shape())
    return [
        generator.normal(size=shape).astype(NUMPY_DTYPES[problem.dtype])
        for shape in shapes
    ]


def operands_of(pass_name, inputs, kernel, output_gradient):
    """Those of a pass, in the order in which it takes them."""
    tensors = {"input": inputs, "kernel": kernel, "output": output_gradient}
    return [tensors[name] for name in OPERANDS[pass_name]]


def to_backend(arrays, dtype):
    return [
        keras.ops.convert_to_tensor(
            a.astype("float32") if dtype == "bfloat16" else a, dtype=dtype
        )
        for a in arrays
    ]


def to_numpy(tensor):
    """As numpy in float64 or the tensor's own numpy dtype."""
    if keras.backend.standardize_dtype(tensor.dtype) == "bfloat16":
        tensor = keras.ops.cast(tensor, "float32")
    return np.asarray(keras.ops.convert_to_numpy(tensor))
