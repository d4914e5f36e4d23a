"""Any problem under any plan: outputs and gradients equal native's and the
reference's. `nox -s properties` draws 2,000 problems a backend."""

import hypothesis
import keras
import numpy as np
from hypothesis import strategies as st

from keras_diagwise import Plan, backends
from keras_diagwise.algorithms import Diagonal, Direct, Native
from keras_diagwise.planning.planned_convolution import PlannedConvolution
from keras_diagwise.problem import PASSES
from tests import reference
from tests.derivatives import vjp
from tests.strategies import problems, tensors, to_backend, to_numpy


@st.composite
def problems_with_plans(draw):
    """A problem, and for each pass an algorithm that can compute it."""
    problem = draw(problems())
    sizes = st.integers(1, problem.groups).map(lambda q: q * problem.channels_per_group)
    choices = st.one_of(
        st.just(Native()),
        st.builds(Direct, st.sampled_from(["taps", "rows"]), st.booleans()),
        st.builds(Diagonal, sizes, st.sampled_from(["grouped", "split"])),
    ).filter(lambda algorithm: algorithm.refusal(problem) is None)
    return problem, Plan(*(draw(choices) for _ in PASSES))


def run(convolution, operands, cotangent):
    """The three passes, as numpy in float64."""
    value, gradients = vjp(
        lambda x, k: backends.active.differentiable(convolution, x, k),
        operands,
        cotangent,
    )
    return [to_numpy(tensor).astype("float64") for tensor in (value, *gradients)]


@hypothesis.given(drawn=problems_with_plans(), seed=st.integers(0, 3))
def test_plans_equal_native_and_reference(drawn, seed):
    problem, plan = drawn
    arrays = tensors(problem, seed)
    inputs, kernel, cotangent = to_backend(arrays, problem.dtype)
    exact = reference.passes(problem, *arrays)
    loose = reference.bounds(problem, *arrays)
    ours = run(PlannedConvolution(problem, plan), [inputs, kernel], cotangent)
    native = None
    if Native().refusal(problem) is None:
        native = run(PlannedConvolution(problem, Plan()), [inputs, kernel], cotangent)
    for i, name in enumerate(PASSES):
        accumulator = reference.summed_in(plan[name], problem.dtype)
        bound = getattr(reference.bounds(problem, *arrays, accumulator), name)
        assert np.all(np.abs(ours[i] - getattr(exact, name)) <= bound), (name, plan)
        if native is not None:
            apart = bound + getattr(loose, name)
            assert np.all(np.abs(ours[i] - native[i]) <= apart), (name, plan)


@st.composite
def layers_with_plans(draw):
    """A depthwise layer's arguments, its input shape, and a plan."""
    problem = draw(problems(ranks=(1, 2), dtypes=("float64",), depthwise=True))
    hypothesis.assume(problem.batch and Native().refusal(problem) is None)
    plan = draw(
        st.sampled_from(
            ["native", "direct", "direct:rows"]
            + [f"diagonal:{n}{rest}" for n in (1, 2, 3) for rest in ("", ":split")]
        )
    )
    size = Plan(plan)["forward"]
    hypothesis.assume(getattr(size, "partition_size", 1) <= problem.channels)
    arguments = {
        "kernel_size": problem.kernel_size,
        "strides": problem.strides,
        "padding": problem.padding,
        "data_format": problem.data_format,
        "dilation_rate": problem.dilation_rate,
        "depth_multiplier": problem.filters_per_group,
        "use_bias": draw(st.booleans()),
        "activation": draw(st.sampled_from([None, "tanh"])),
    }
    return problem, arguments, plan


@hypothesis.given(drawn=layers_with_plans())
@hypothesis.settings(max_examples=15)
def test_a_layer_learns_what_stock_learns(float64, drawn):
    """One step of SGD at rate 1 leaves the gradients of kernel and bias."""
    import keras_diagwise as kd

    problem, arguments, plan = drawn
    classes = {
        1: (keras.layers.DepthwiseConv1D, kd.DiagonalwiseDepthwiseConv1D),
        2: (keras.layers.DepthwiseConv2D, kd.DiagonalwiseDepthwiseConv2D),
    }
    stock, ours = classes[problem.rank]
    arrays = tensors(problem)
    models = []
    for layer in (stock(**arguments), ours(**arguments, plan=plan)):
        model = keras.Sequential([keras.Input(problem.input_shape()[1:]), layer])
        model.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=True)
        models.append(model)
    models[1].set_weights(models[0].get_weights())
    for model in models:
        model.train_on_batch(arrays[0], arrays[2])
    for one, other in zip(
        models[0].get_weights(), models[1].get_weights(), strict=True
    ):
        assert one.dtype == np.float64
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)
