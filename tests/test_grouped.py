"""`conv`: grouped kernels, by any plan what `keras.ops.conv` computes."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

import keras_diagwise as kd
from keras_diagwise import Plan, backends
from keras_diagwise.algorithms import Native
from keras_diagwise.environment import Environment
from keras_diagwise.ops import convolved_by_plan, dispatcher, separable_conv
from keras_diagwise.plan import NATIVE
from keras_diagwise.planning.call import GROUPED, grouped_problem
from keras_diagwise.planning.planner import Planner, fallback_plan
from keras_diagwise.storage.document import Document
from tests import reference
from tests.derivatives import vjp
from tests.strategies import to_numpy

BACKEND = keras.backend.backend()
PLANS = [
    "auto",
    "native",
    "direct",
    "diagonal:2",
    "diagonal:4:split",
    Plan("direct", "native", "diagonal:8:split"),
]
plans = pytest.mark.parametrize("plan", PLANS, ids=str)
FIELDS = ("strides", "padding", "data_format", "dilation_rate")


def draw(*shape, dtype="float64"):
    generator = np.random.default_rng(sum(shape))
    return ops.convert_to_tensor(generator.normal(size=shape), dtype=dtype)


CALLS = {
    "groups of 2": ((2, 7, 8, 8), (3, 3, 2, 12), {}),
    "depthwise": ((2, 7, 8, 8), (3, 3, 1, 16), {"padding": "same"}),
    "strides": ((2, 7, 8, 8), (3, 3, 2, 8), {"strides": 2, "padding": "SAME"}),
    "unequal strides": ((2, 7, 8, 8), (3, 3, 1, 8), {"strides": (1, 2)}),
    "dilation": ((2, 7, 8, 8), (3, 2, 2, 8), {"dilation_rate": (2, 1)}),
    "steps": ((2, 9, 8), (3, 2, 8), {"padding": "same"}),
    "volumes": ((2, 4, 5, 4, 8), (2, 2, 2, 2, 8), {"padding": "same"}),
    "depthwise volumes": ((2, 4, 5, 4, 8), (2, 2, 2, 1, 8), {}),
    "channels first": (
        (2, 8, 6, 7),
        (3, 3, 2, 8),
        {"data_format": "channels_first", "padding": "same"},
    ),
    "one group": ((2, 7, 8, 8), (3, 3, 8, 12), {"padding": "same"}),
}


def problem_of(name):
    shape, kernel_shape, arguments = CALLS[name]
    whole = {**DEFAULTS, **arguments}
    return grouped_problem(shape, "float64", kernel_shape, *whole.values())


DEFAULTS = {
    "strides": 1,
    "padding": "valid",
    "data_format": "channels_last",
    "dilation_rate": 1,
}


@pytest.mark.parametrize("name", CALLS)
def test_results_equal_the_definition(name):
    """Outputs and gradients are those of the definition, by each algorithm.

    Stock's outputs are compared too.
    """
    shape, kernel_shape, arguments = CALLS[name]
    problem = problem_of(name)
    operands = draw(*shape), draw(*kernel_shape), draw(*problem.output_shape())
    arrays = [to_numpy(each) for each in operands]
    exact = reference.passes(problem, *arrays)
    bounds = reference.bounds(problem, *arrays)
    stock = to_numpy(ops.conv(*operands[:2], **{**arguments, **lower(arguments)}))
    assert np.all(np.abs(stock - exact.forward) <= bounds.forward)
    for plan in ("native", "direct", Plan("direct", "diagonal:8", "diagonal:8:split")):
        outputs, gradients = vjp(
            lambda x, k, p=plan: kd.conv(x, k, **arguments, plan=p),
            list(operands[:2]),
            operands[2],
        )
        for ours, field in zip(
            (outputs, *gradients),
            ("forward", "input_gradient", "kernel_gradient"),
            strict=True,
        ):
            apart = np.abs(to_numpy(ours) - getattr(exact, field))
            assert np.all(apart <= getattr(bounds, field)), (plan, field)


def lower(arguments):
    """torch's stock operation takes the padding in small letters only."""
    return {"padding": arguments.get("padding", "valid").lower()}


@plans
def test_takes_numpy_lists_and_variables(plan):
    inputs, kernel = np.ones((1, 4, 4, 8), "float32"), np.ones((2, 2, 2, 8), "float32")
    expected = np.full((1, 3, 3, 8), 8.0)
    for x, k in [
        (keras.Variable(inputs), keras.Variable(kernel)),
        (inputs, kernel),
        (inputs.tolist(), kernel.tolist()),
    ]:
        np.testing.assert_array_equal(to_numpy(kd.conv(x, k, plan=plan)), expected)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"strides": 0}, "strides=0"),
        ({"data_format": "NHWC"}, "data_format='NHWC'"),
        ({"kernel": np.ones((1,), "float32")}, "kernel.shape=(1,)"),
        ({"plan": "fastest"}, "fastest"),
        ({"plan": "diagonal:3"}, "partition_size=3"),
        ({"plan": "diagonal:16"}, "partition_size=16"),
        ({"padding": "causal"}, "padding='causal'"),
        ({"kernel": np.ones((3, 3, 3, 6), "float32")}, "kernel.shape=(3, 3, 3, 6)"),
        ({"kernel": np.ones((3, 3, 2, 6), "float32")}, "number of filters (=6)"),
        ({"inputs": np.ones((6, 8), "float32")}, "inputs.shape=(6, 8)"),
    ],
)
def test_invalid_arguments_are_named(arguments, named):
    """An argument that does not fit is named with its value."""
    whole = {
        "inputs": np.ones((2, 6, 6, 8), "float32"),
        "kernel": np.ones((3, 3, 2, 8), "float32"),
        **arguments,
    }
    with pytest.raises(ValueError) as error:
        kd.conv(**whole)
    assert named in str(error.value)


def test_depthwise_and_grouped_calls_differ():
    """A depthwise and a grouped call of the same shapes are told apart.

    The kernel `(1, 1, 4, 4)` is 4 channels with a multiplier of 4 in the one, and
    dense in the other.
    """
    inputs, kernel = draw(1, 2, 2, 4), draw(1, 1, 4, 4)
    for _ in range(2):
        assert kd.depthwise_conv(inputs, kernel, plan="direct").shape[-1] == 16
        assert kd.conv(inputs, kernel, plan="direct").shape[-1] == 4


def test_a_single_channel_asks_no_planner(monkeypatch):
    """Keras has a depthwise operation for it, which is not what `conv` is."""

    class Forbidden(Planner):
        def plan(self, problem, environment):
            raise AssertionError(f"the planner was asked for {problem}")

    monkeypatch.setattr(dispatcher, "_planner", Forbidden(Document(), Document()))
    inputs, kernel = draw(2, 5, 4, 1), draw(3, 3, 1, 2)
    ours, stock = (f(inputs, kernel) for f in (kd.conv, ops.conv))
    np.testing.assert_array_equal(to_numpy(ours), to_numpy(stock))


@pytest.mark.parametrize("plan", ["matmul", "matmul:patches"])
def test_one_group_runs_by_its_plan(plan):
    inputs, kernel = draw(2, 5, 4, 7), draw(3, 3, 7, 2)
    ours = kd.conv(inputs, kernel, padding="same", plan=plan)
    stock = ops.conv(inputs, kernel, padding="same")
    np.testing.assert_allclose(to_numpy(ours), to_numpy(stock), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("no_dense")
@pytest.mark.parametrize("on_miss", ["error", "tune"])
def test_one_group_of_stocks_is_no_miss(on_miss):
    """One group is no cache miss where stock's is the only algorithm."""
    with dispatcher.settings.temporarily(on_miss=on_miss):
        inputs, kernel = draw(2, 5, 4, 7), draw(3, 3, 7, 2)
        ours, stock = (f(inputs, kernel) for f in (kd.conv, ops.conv))
    np.testing.assert_array_equal(to_numpy(ours), to_numpy(stock))


def test_symbolic_calls_give_shapes():
    outputs = kd.conv(
        keras.KerasTensor((None, 8, 8, 4)), keras.KerasTensor((3, 3, 4, 6))
    )
    assert outputs.shape == (None, 6, 6, 6)


def environment(backend, compiler_mode):
    return Environment(backend, compiler_mode, "cpu", "any", 2, (), (), ())


def test_fallback_is_dense_blocks_in_graphs():
    """Dense blocks serve where Keras compiles native inside a graph."""
    problem = problem_of("groups of 2")
    for compiler_mode, plan in [
        ("graph", "diagonal:8:split"),
        ("eager", "diagonal:8:split"),
        ("xla", "native"),
    ]:
        found = fallback_plan(problem, environment("tensorflow", compiler_mode))
        assert str(found) == plan
    assert str(fallback_plan(problem, environment("jax", "xla"))) == "native"
    assert str(fallback_plan(problem, environment("torch", "eager"))) == "native"
    one = fallback_plan(problem_of("one group"), environment("tensorflow", "graph"))
    assert str(one) == "native"


@pytest.mark.parametrize("name", CALLS)
def test_the_fallback_plan_can_be_computed(name):
    """The plan of an unknown problem can be computed.

    It is not native where native refuses, as on TensorFlow for unequal strides.
    """
    problem = problem_of(name)
    plan = fallback_plan(problem, Environment.current())
    for pass_name in ("forward", "input_gradient", "kernel_gradient"):
        assert plan[pass_name].refusal(problem) is None
    if Native().refusal(problem) is not None:
        assert not plan.is_native


SEPARABLE = {
    "plain": ((2, 7, 8, 4), (3, 3, 4, 2), {}),
    "strides": ((2, 7, 8, 4), (3, 3, 4, 1), {"strides": 2, "padding": "same"}),
    "dilation": ((2, 7, 8, 4), (3, 3, 4, 1), {"dilation_rate": 2}),
    "steps": ((2, 9, 4), (3, 4, 2), {"padding": "same"}),
    "channels first": (
        (2, 4, 6, 7),
        (3, 3, 4, 2),
        {"data_format": "channels_first", "padding": "same"},
    ),
}


@pytest.mark.parametrize("plan", ["native", "direct", "diagonal:2:split"])
@pytest.mark.parametrize("name", SEPARABLE)
def test_separable_equals_stock(plan, name):
    """A separable convolution is depthwise, then pointwise, and equals stock's."""
    shape, kernel_shape, given = SEPARABLE[name]
    arguments = {**DEFAULTS, **given}
    channels = kernel_shape[-1] * kernel_shape[-2]
    pointwise_shape = (1,) * (len(shape) - 2) + (channels, 5)
    operands = [draw(*shape), draw(*kernel_shape), draw(*pointwise_shape)]

    def ours(x, k, p, pointwise_plan):
        return separable_conv(x, k, p, *arguments.values(), plan, pointwise_plan)

    def stock(x, k, p):
        return ops.separable_conv(x, k, p, **arguments)

    cotangent = draw(*stock(*operands).shape)
    expected = keras.tree.flatten(vjp(stock, operands, cotangent))
    for pointwise_plan in (NATIVE, Plan("matmul", "matmul", "matmul:patches")):
        run = functools.partial(ours, pointwise_plan=pointwise_plan)
        found = keras.tree.flatten(vjp(run, operands, cotangent))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(to_numpy(one), to_numpy(other), atol=1e-11)


def test_a_call_in_the_memo_is_not_resolved(monkeypatch):
    """A call in the memo is not looked up again."""
    inputs, kernel = draw(3, 7, 5, 8), draw(3, 3, 2, 8)
    kd.conv(inputs, kernel, plan="direct")
    monkeypatch.setattr(dispatcher, "resolve", None)
    kd.conv(inputs, kernel, plan="direct")
    with pytest.raises(TypeError):
        kd.conv(inputs[:, 1:], kernel, plan="direct")


def test_operands_of_two_dtypes_are_stocks():
    inputs, kernel = draw(1, 5, 5, 8, dtype="float32"), draw(3, 3, 2, 8)
    arguments = kernel, 1, "valid", "channels_last", 1, "direct"
    assert convolved_by_plan(GROUPED, inputs, *arguments) is None
    assert convolved_by_plan(GROUPED, draw(1, 5, 5, 8), *arguments) is not None


@pytest.mark.skipif(BACKEND != "jax", reason="about JAX")
def test_native_is_the_stock_program():
    """A plan of native throughout traces to the stock program."""
    import jax

    inputs, kernel = draw(2, 5, 5, 8), draw(3, 3, 2, 8)
    ours = jax.make_jaxpr(lambda x, k: kd.conv(x, k, plan="native"))(inputs, kernel)
    stock = jax.make_jaxpr(lambda x, k: ops.conv(x, k))(inputs, kernel)
    assert str(ours) == str(stock)


@pytest.mark.skipif(BACKEND != "torch", reason="about torch")
def test_native_is_the_stock_operation():
    """Native throughout is the stock operation, on JAX and torch.

    On TensorFlow, a depthwise call runs its depthwise kernel.
    """
    assert backends.active.native_conv is ops.conv


@pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow")
class TestTensorFlow:
    def operations(self, convolve, kernel):
        import tensorflow as tf

        @tf.function(autograph=False)
        def step(x, k):
            with tf.GradientTape() as tape:
                tape.watch([x, k])
                loss = tf.reduce_sum(convolve(x, k))
            return tape.gradient(loss, [x, k])

        graph = step.get_concrete_function(draw(2, 5, 5, 8), kernel).graph
        return [operation.type for operation in graph.get_operations()]

    @pytest.mark.parametrize("plan", ["auto", "native"])
    def test_graphs_run_the_depthwise_kernel(self, plan):
        """A depthwise call runs TensorFlow's depthwise kernel in graphs."""
        kernel = draw(3, 3, 1, 8)
        ours = self.operations(lambda x, k: kd.conv(x, k, plan=plan), kernel)
        assert "DepthwiseConv2dNative" in ours
        assert "DepthwiseConv2dNativeBackpropFilter" in ours
        assert not any("PartitionedCall" in name for name in ours)
        stock = self.operations(ops.conv, kernel)
        assert any("PartitionedCall" in name for name in stock)

    def test_groups_run_dense_blocks_in_graphs(self):
        kernel = draw(3, 3, 2, 8)
        ours = self.operations(lambda x, k: kd.conv(x, k), kernel)
        assert "Conv2D" in ours
        assert not any("PartitionedCall" in name for name in ours)

    def test_shapes_that_are_not_known(self):
        import tensorflow as tf

        for kernel in (draw(3, 3, 1, 8), draw(3, 3, 2, 8)):
            for shape in [(None, 6, 6, 8), (None, None, None, 8), (None,) * 4]:
                signature = [tf.TensorSpec(shape, "float64")]

                @tf.function(input_signature=signature, autograph=False)
                def step(x, k=kernel):
                    with tf.GradientTape() as tape:
                        tape.watch([x, k])
                        loss = tf.reduce_sum(kd.conv(x, k, padding="same") ** 2)
                    return tape.gradient(loss, [x, k])

                inputs = draw(3, 6, 6, 8)
                outputs = ops.conv(inputs, kernel, padding="same")
                _, stock = vjp(
                    lambda x, k: ops.conv(x, k, padding="same"),
                    [inputs, kernel],
                    2 * outputs,
                )
                for one, other in zip(step(inputs), stock, strict=True):
                    np.testing.assert_allclose(one, other, atol=1e-10)
