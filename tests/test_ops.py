"""The functional op: what it computes, what it leaves to stock, what it costs."""

import functools
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

import keras_diagwise as kd
from keras_diagwise import Plan, backends
from keras_diagwise.ops import dispatcher
from keras_diagwise.planning.call import (
    DEPTHWISE,
    Call,
    depthwise_problem,
    on_one_device,
)
from keras_diagwise.planning.dispatch import Dispatcher
from keras_diagwise.planning.planner import Planner
from keras_diagwise.storage.document import Document
from tests.algorithms.suite import data_parallel, depthwise
from tests.derivatives import vjp
from tests.fake_runner import traced_convolutions
from tests.strategies import to_numpy
from tests.threads import THREADS, in_threads

BACKEND = keras.backend.backend()
PLANS = [
    "native",
    "direct",
    "direct:rows",
    "diagonal:2",
    "diagonal:4:split",
    Plan("direct", "native", "diagonal:2"),
]
plans = pytest.mark.parametrize("plan", PLANS, ids=str)


def x64(enabled):
    """A context manager: whether JAX has 64-bit types."""
    from keras_diagwise.backends import jax_backend

    return jax_backend.enable_x64(enabled)


def draw(*shape, dtype="float64"):
    generator = np.random.default_rng(sum(shape))
    return ops.convert_to_tensor(generator.normal(size=shape), dtype=dtype)


@plans
def test_is_a_drop_in_for_the_stock_op(plan):
    inputs, kernel = draw(2, 7, 8, 4), draw(3, 3, 4, 2)
    for arguments in [
        {},
        {"strides": 2, "padding": "SAME"},
        {"strides": (2, 2), "padding": "valid"},
        {"dilation_rate": (2, 2), "padding": "same"},
        {"data_format": "channels_last"},
    ]:
        ours = kd.depthwise_conv(inputs, kernel, **arguments, plan=plan)
        stock = ops.depthwise_conv(inputs, kernel, **arguments)
        np.testing.assert_allclose(to_numpy(ours), to_numpy(stock), atol=1e-12)


@plans
def test_takes_numpy_lists_and_variables(plan):
    inputs, kernel = np.ones((1, 4, 4, 4), "float32"), np.ones((2, 2, 4, 1), "float32")
    expected = np.full((1, 3, 3, 4), 4.0)
    variable = keras.Variable(kernel)
    for x, k in [
        (keras.Variable(inputs), variable),
        (inputs, kernel),
        (inputs.tolist(), kernel.tolist()),
        (inputs, variable),
    ]:
        np.testing.assert_array_equal(
            to_numpy(kd.depthwise_conv(x, k, plan=plan)), expected
        )


@plans
def test_gradient_of_a_gradient(plan):
    """A gradient penalty: the derivative of ‖∂loss/∂inputs‖² with respect to the
    kernel, under each plan as under stock."""
    inputs, kernel = draw(2, 6, 6, 4), draw(3, 3, 4, 1)

    def penalty(convolve):
        def of_kernel(x, k):
            def loss(x):
                return ops.sum(ops.tanh(convolve(x, k)))

            _, (gradient,) = nested_vjp(loss, x)
            return ops.sum(gradient**2)

        return second_order(of_kernel, inputs, kernel)

    ours = penalty(lambda x, k: kd.depthwise_conv(x, k, padding="same", plan=plan))
    stock = penalty(lambda x, k: ops.depthwise_conv(x, k, padding="same"))
    for one, other in zip(ours, stock, strict=True):
        np.testing.assert_allclose(
            to_numpy(one), to_numpy(other), rtol=1e-10, atol=1e-11
        )


def nested_vjp(loss, x):
    """The gradient of a scalar with respect to `x`, itself differentiable."""
    if BACKEND == "jax":
        import jax

        return loss(x), (jax.grad(loss)(x),)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(x)
        return value, (tape.gradient(value, x),)
    import torch

    x = x if x.requires_grad else x.detach().requires_grad_()
    value = loss(x)
    return value, torch.autograd.grad(value, x, create_graph=True)


def second_order(function, *operands):
    if BACKEND == "jax":
        import jax

        return jax.jit(jax.grad(function, argnums=(0, 1)))(*operands)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(operands)
            value = function(*operands)
        return tape.gradient(value, operands)
    import torch

    operands = [operand.detach().requires_grad_() for operand in operands]
    return torch.autograd.grad(function(*operands), operands)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_results_keep_the_dtype(dtype):
    inputs, kernel = draw(2, 6, 6, 4, dtype=dtype), draw(3, 3, 4, 1, dtype=dtype)
    for plan in PLANS:
        outputs = kd.depthwise_conv(inputs, kernel, plan=plan)
        assert keras.backend.standardize_dtype(outputs.dtype) == dtype


class Forbidden(Planner):
    """A planner that no call may reach."""

    def __init__(self):
        super().__init__(Document(), Document())

    def plan(self, problem, environment):
        raise AssertionError(f"the planner was asked for {problem}")


def test_symbolic_calls_touch_no_planner(monkeypatch):
    monkeypatch.setattr(dispatcher, "_planner", Forbidden())

    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.convolve = kd.DiagonalwiseDepthwiseConv2D(3)

        def call(self, inputs):
            return self.convolve(inputs)

    outputs = kd.depthwise_conv(
        keras.KerasTensor((None, 8, 8, 4)), keras.KerasTensor((3, 3, 4, 2))
    )
    assert outputs.shape == (None, 6, 6, 8)
    model = keras.Sequential([keras.Input((9, 9, 4)), Block()])
    assert model.output_shape == (None, 7, 7, 4)


@pytest.mark.parametrize("stride", [1, 2])
def test_an_empty_batch_has_the_usual_shape(stride):
    """An empty batch has the output shape of others.

    TensorFlow's own operation returns its input (seen in 2.21).
    """
    inputs, kernel = np.ones((0, 6, 6, 4), "float32"), np.ones((3, 3, 4, 2), "float32")
    outputs = kd.depthwise_conv(inputs, kernel, stride, "same")
    assert tuple(outputs.shape) == (0, 6 // stride, 6 // stride, 8)


def test_threads_share_a_bounded_memo(monkeypatch):
    monkeypatch.setattr("keras_diagwise.planning.dispatch.MAX_REMEMBERED", 8)
    fresh = Dispatcher(Planner(Document(), Document()))
    kernel = np.ones((1, 1, 2, 1), "float32")

    def ask(offset):
        for size in range(1, 40):
            inputs = np.ones((1, size + offset, 3, 2), "float32")
            call = call_of(inputs, kernel)
            assert fresh.resolve(call, call, inputs, kernel) is None

    assert not in_threads(ask)
    assert 0 < len(fresh.memo) <= 8 + THREADS


def call_of(inputs, kernel):
    """A call of the op with default arguments."""
    arguments = 1, "valid", "channels_last", 1, "auto"
    return Call(DEPTHWISE, inputs.shape, inputs.dtype, kernel.shape, *arguments)


def test_a_call_in_the_memo_is_not_resolved(monkeypatch):
    """A call in the memo is not looked up again."""
    inputs, kernel = draw(3, 7, 5, 4), draw(3, 3, 4, 1)
    kd.depthwise_conv(inputs, kernel)
    monkeypatch.setattr(dispatcher, "resolve", None)
    kd.depthwise_conv(inputs, kernel)
    with pytest.raises(TypeError):
        kd.depthwise_conv(draw(3, 7, 6, 4), kernel)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"strides": 0}, "strides=0"),
        ({"strides": 1.5}, "strides=1.5"),
        ({"strides": None}, "strides=None"),
        ({"dilation_rate": None}, "dilation_rate=None"),
        ({"data_format": "NHWC"}, "data_format='NHWC'"),
        ({"kernel": np.ones((1,), "float32")}, "kernel.shape=(1,)"),
        ({"inputs": np.float32(1)}, "inputs.shape=()"),
        ({"plan": "native:2"}, "native:2"),
        ({"plan": "direct:rows:9"}, "direct:rows:9"),
        ({"plan": "fastest"}, "fastest"),
        ({"plan": "diagonal:0"}, "partition_size=0"),
        ({"plan": "diagonal:5"}, "partition_size=5"),
        ({"padding": "causal"}, "padding='causal'"),
        ({"kernel": np.ones((3, 3, 5, 1), "float32")}, "kernel.shape=(3, 3, 5, 1)"),
        ({"inputs": np.ones((6, 4), "float32")}, "inputs.shape=(6, 4)"),
    ],
)
def test_invalid_arguments_are_named(arguments, named):
    """An argument that does not fit is named with its value."""
    whole = {
        "inputs": np.ones((2, 6, 6, 4), "float32"),
        "kernel": np.ones((3, 3, 4, 1), "float32"),
        **arguments,
    }
    with pytest.raises(ValueError) as error:
        kd.depthwise_conv(**whole)
    assert named in str(error.value)


@plans
def test_data_format_is_keras_at_each_call(plan):
    """The data format is Keras's own at each call."""
    inputs, kernel = draw(2, 4, 4, 4), draw(3, 3, 4, 1)
    last = kd.depthwise_conv(inputs, kernel, plan=plan)
    keras.config.set_image_data_format("channels_first")
    try:
        first = kd.depthwise_conv(inputs, kernel, plan=plan)
    finally:
        keras.config.set_image_data_format("channels_last")
    assert tuple(last.shape) == (2, 2, 2, 4)
    assert tuple(first.shape) == (2, 4, 2, 2)


@plans
def test_an_infinity_spreads_as_in_stock(plan):
    """An infinite gradient spreads no further than in stock.

    This holds also at pixels that no tap reaches. `diagonal` spreads it over its block.
    """
    if "diagonal" in str(plan):
        pytest.skip("documented: it spreads to the other channels of its block")
    inputs, kernel = draw(1, 5, 5, 4), draw(1, 1, 4, 1)
    gradient = np.ones((1, 3, 3, 4))
    gradient[0, 1, 1, 0] = np.inf
    gradient = ops.convert_to_tensor(gradient)
    found = []
    for convolve in (
        lambda x, k: ops.depthwise_conv(x, k, 2, "same"),
        lambda x, k: kd.depthwise_conv(x, k, 2, "same", plan=plan),
    ):
        _, (by_inputs, _) = vjp(convolve, [inputs, kernel], gradient)
        found.append(np.isnan(to_numpy(by_inputs)).sum())
    assert found[1] <= found[0]


@plans
def test_empty_shapes_are_stocks(plan):
    """Empty shapes are the same as in stock."""
    for shape, padding in [((2, 0, 8, 4), "same"), ((2, 2, 8, 4), "valid")]:
        inputs, kernel = draw(*shape), draw(3, 3, 4, 1)
        try:
            stock = ops.depthwise_conv(inputs, kernel, 1, padding)
        except RuntimeError:  # torch refuses what has no output
            with pytest.raises(RuntimeError):
                kd.depthwise_conv(inputs, kernel, 1, padding, plan=plan)
            continue
        ours = kd.depthwise_conv(inputs, kernel, 1, padding, plan=plan)
        assert tuple(ours.shape) == tuple(stock.shape)


def test_numpy_integers_are_integers():
    strides = (np.int64(2), np.int64(2))
    ours = kd.depthwise_conv(draw(1, 6, 6, 4), draw(3, 3, 4, 1), strides, plan="direct")
    assert tuple(ours.shape) == (1, 2, 2, 4)
    operands = draw(1, 6, 6, 4), draw(3, 3, 2, 4)
    plans = ("direct", "native") if BACKEND == "tensorflow" else ("direct",)
    for plan in plans:
        ours = kd.conv(*operands, np.int64(2), dilation_rate=np.int32(1), plan=plan)
        assert tuple(ours.shape) == (1, 2, 2, 4)


@plans
def test_data_format_in_any_case(plan):
    """The data format may be in upper case, as Keras takes it."""
    inputs, kernel = draw(2, 6, 6, 4), draw(3, 3, 4, 1)
    ours = kd.depthwise_conv(inputs, kernel, data_format="CHANNELS_LAST", plan=plan)
    assert tuple(ours.shape) == (2, 4, 4, 4)
    ours = kd.conv(inputs, draw(3, 3, 2, 8), data_format="Channels_Last", plan=plan)
    assert tuple(ours.shape) == (2, 4, 4, 8)


def test_unequal_strides_run():
    """Unequal strides run where stock refuses them."""
    inputs, kernel = draw(2, 7, 8, 4), draw(3, 3, 4, 1)
    ours = kd.depthwise_conv(inputs, kernel, (1, 2), "same")
    every = ops.depthwise_conv(inputs, kernel, 1, "valid")
    assert tuple(ours.shape) == (2, 7, 4, 4)
    np.testing.assert_allclose(
        to_numpy(ours)[:, 1:-1, :3], to_numpy(every)[:, :, 0::2], atol=1e-12
    )


@pytest.mark.skipif(BACKEND != "jax", reason="about JAX")
class TestJax:
    def test_arrays_have_the_dtype_of_tensors(self, monkeypatch):
        """An array of NumPy in float64 is a tensor in float32, without x64."""

        seen = traced_convolutions(monkeypatch)
        arrays = np.ones((2, 5, 5, 4)), np.ones((3, 3, 4, 1))
        wide = kd.depthwise_conv(*arrays, plan="direct")  # a call that is remembered
        with x64(False):
            narrow = kd.depthwise_conv(*arrays, plan="direct")
        assert (wide.dtype, narrow.dtype) == ("float64", "float32")
        assert [each.problem.dtype for each in seen] == ["float64", "float32"]

    def test_layers_have_the_dtype_of_tensors(self):
        """A layer in float64 poses problems in float32, without x64, and a problem in
        float64 can't be measured."""
        layer = kd.DiagonalwiseDepthwiseConv2D(3, plan="direct", dtype="float64")
        model = keras.Sequential([keras.Input((6, 6, 4)), layer])
        (row,) = kd.summary(model, batch_size=2)
        assert row.problem.dtype == "float64"
        with x64(False):
            (row,) = kd.summary(model, batch_size=2)
            assert row.problem.dtype == "float32"
            wide = depthwise((6, 6), 4, (3, 3), batch=2, dtype="float64")
            with pytest.raises(ValueError, match="set jax_enable_x64 for float64"):
                kd.tune([wide], verbose=0)

    def test_arrays_of_64_bits_keep_them(self):
        """Arrays in float64 are computed so, also where there are no such types."""
        import jax

        operands = draw(2, 6, 6, 4), draw(3, 3, 4, 1)

        def gradients(plan):
            def loss(x, k):
                return kd.depthwise_conv(x, k, plan=plan).sum()

            return jax.jit(jax.grad(loss, (0, 1)))(*operands)

        exact = gradients("native")
        with x64(False):
            found = gradients("direct")
        for ours, expected in zip(found, exact, strict=True):
            assert ours.dtype == "float64"
            np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10)

    @plans
    @pytest.mark.parametrize("is_inside", [True, False])
    def test_64_bit_types_are_the_callers(self, plan, is_inside):
        """Whether there are 64-bit types where a call is traced holds in its gradients,
        wherever they are computed."""
        import jax
        import jax.numpy as jnp

        operands = draw(2, 6, 6, 4), draw(3, 3, 4, 1)

        def loss(x, k):
            return jnp.sum(kd.depthwise_conv(x, k, plan=plan) ** 2)

        def stock(x, k):
            return jnp.sum(ops.depthwise_conv(x, k) ** 2)

        def widened(x, k):
            with x64(True):
                wide = [
                    jax.lax.convert_element_type(each, "float64") for each in (x, k)
                ]
                return jax.grad(loss, (0, 1))(*wide)

        exact = jax.grad(stock, (0, 1))(*operands)
        with x64(False):
            if is_inside:
                found = jax.jit(widened)(*operands)
            else:
                with x64(True):
                    one, gradients = jnp.ones(()), jax.vjp(loss, *operands)[1]
                found = gradients(one)
        for ours, expected in zip(found, exact, strict=True):
            assert ours.dtype == "float64"
            np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10)

    def test_precision_is_the_callers(self):
        """The precision of products where a function is traced holds, as in stock, in
        the program, and in gradients that are computed elsewhere."""
        import jax

        inputs, kernel = draw(2, 6, 6, 4), draw(3, 3, 4, 1)

        def products(function, plan):
            """Those of the highest precision, and all."""
            call = ops.depthwise_conv
            if plan is not None:
                call = functools.partial(kd.depthwise_conv, plan=plan)
            text = jax.jit(lambda *operands: function(call, *operands)).lower(
                inputs, kernel
            )
            lines = [n for n in text.as_text().splitlines() if "convolution(" in n]
            return sum("HIGHEST" in each for each in lines), len(lines)

        def forward(call, x, k):
            with jax.default_matmul_precision("highest"):
                return call(x, k)

        def elsewhere(call, x, k):
            with jax.default_matmul_precision("highest"):
                outputs, gradients = jax.vjp(call, x, k)
            return gradients(outputs)

        def plain(call, x, k):
            return call(x, k)

        for function, count in ((forward, 1), (elsewhere, 2), (plain, 0)):
            for plan in (None, "diagonal", Plan("native", "diagonal", "diagonal")):
                highest, every = products(function, plan)
                assert every
                assert highest == (every if count else 0), (function, plan)

    @plans
    def test_transformations(self, plan):
        import jax.export

        inputs, kernel = draw(2, 5, 5, 4), draw(3, 3, 4, 1)

        def ours(x, k):
            return kd.depthwise_conv(x, k, padding="same", plan=plan)

        def stock(x, k):
            return ops.depthwise_conv(x, k, padding="same")

        def loss(f):
            return lambda x, k: (jax.numpy.tanh(f(x, k)) ** 2).sum()

        many, kernels = draw(3, 2, 5, 5, 4), draw(3, 3, 3, 4, 1)
        transformed = {
            "jvp": lambda f: jax.jvp(f, (inputs, kernel), (inputs + 1, kernel - 1)),
            "jacfwd": lambda f: jax.jacfwd(loss(f), argnums=(0, 1))(inputs, kernel),
            "hessian": lambda f: jax.hessian(loss(f), argnums=1)(inputs, kernel),
            "third order": lambda f: jax.grad(
                lambda k: jax.grad(lambda k: jax.grad(loss(f), 1)(inputs, k).sum())(
                    k
                ).sum()
            )(kernel),
            "vmap of inputs": lambda f: jax.vmap(f, (0, None))(many, kernel),
            "vmap of kernels": lambda f: jax.vmap(f, (None, 0))(inputs, kernels),
            "vmap of both": lambda f: jax.vmap(f)(many, kernels),
            "vmap along axis 2": lambda f: jax.vmap(f, (2, None), 2)(
                jax.numpy.moveaxis(many, 0, 2), kernel
            ),
            "gradient for each example": lambda f: jax.vmap(
                jax.grad(loss(f), 1), (0, None)
            )(many, kernel),
            "gradient through vmap": lambda f: jax.grad(
                lambda k: jax.vmap(loss(f), (0, None))(many, k).sum()
            )(kernel),
            "checkpoint": lambda f: jax.grad(jax.checkpoint(loss(f)))(inputs, kernel),
            "export": lambda f: jax.export.export(jax.jit(f))(inputs, kernel).call(
                inputs, kernel
            ),
        }
        for name, transform in transformed.items():
            one, other = (
                jax.tree.leaves(transform(ours)),
                jax.tree.leaves(transform(stock)),
            )
            for a, b in zip(one, other, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10, err_msg=name)

    def test_native_is_the_stock_program(self):
        """A plan of native throughout traces to the stock program."""
        import jax

        inputs, kernel = draw(2, 5, 5, 4), draw(3, 3, 4, 1)
        ours = jax.make_jaxpr(lambda x, k: kd.depthwise_conv(x, k, plan="native"))(
            inputs, kernel
        )
        stock = jax.make_jaxpr(lambda x, k: ops.depthwise_conv(x, k))(inputs, kernel)
        assert str(ours) == str(stock)

    def test_what_is_frozen_is_not_computed(self):
        import jax

        inputs, kernel = draw(2, 5, 5, 4), draw(3, 3, 4, 1)

        def loss(x, k):
            return kd.depthwise_conv(x, k, plan="direct").sum()

        text = str(jax.make_jaxpr(jax.grad(loss, 0))(inputs, kernel))
        assert "diagonalwise_input_gradient" in text
        assert "diagonalwise_kernel_gradient" not in text
        text = str(jax.make_jaxpr(jax.grad(loss, 1))(inputs, kernel))
        assert "diagonalwise_input_gradient" not in text

    def test_a_batch_of_unknown_size_exports(self):
        import jax.export

        kernel = draw(3, 3, 4, 1)
        (batch,) = jax.export.symbolic_shape("batch")
        shape = jax.ShapeDtypeStruct((batch, 5, 5, 4), "float64")
        function = jax.jit(lambda x: kd.depthwise_conv(x, kernel, plan="direct"))
        exported = jax.export.export(function)(shape)
        for size in (1, 3):
            inputs = draw(size, 5, 5, 4)
            np.testing.assert_allclose(
                exported.call(inputs), ops.depthwise_conv(inputs, kernel), atol=1e-12
            )

    @plans
    def test_in_shard_map(self, plan):
        """The gradient of a replicated kernel is summed over the devices."""
        import jax
        from jax.sharding import PartitionSpec

        inputs, kernel = draw(4, 6, 6, 4), draw(3, 3, 4, 1)
        mesh = jax.make_mesh((2,), ("batch",), (jax.sharding.AxisType.Auto,))
        sharded, replicated = PartitionSpec("batch"), PartitionSpec()

        def loss(x, k):
            return jax.numpy.tanh(kd.depthwise_conv(x, k, plan=plan)).sum()

        def summed(x, k):
            return jax.lax.psum(loss(x, k), "batch")

        inside = jax.shard_map(
            jax.grad(loss, 1),
            mesh=mesh,
            in_specs=(sharded, replicated),
            out_specs=replicated,
        )
        outside = jax.grad(
            jax.shard_map(
                summed, mesh=mesh, in_specs=(sharded, replicated), out_specs=replicated
            ),
            1,
        )
        whole = jax.grad(loss, 1)(inputs, kernel)
        for gradient in (inside, outside):
            found = jax.jit(gradient)(inputs, kernel)
            np.testing.assert_allclose(found, whole, atol=1e-12)

    @plans
    def test_without_jit(self, plan):
        import jax

        inputs, kernel = draw(2, 6, 6, 4), draw(3, 3, 4, 1)
        with jax.disable_jit():
            ours = kd.depthwise_conv(inputs, kernel, plan=plan)
        np.testing.assert_allclose(ours, ops.depthwise_conv(inputs, kernel), atol=1e-12)

    def test_explicit_sharding_is_stocks(self):
        """Under explicit sharding the call is stock's."""
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        mesh = jax.make_mesh((2,), ("batch",), (jax.sharding.AxisType.Explicit,))
        with jax.set_mesh(mesh):
            inputs = jax.device_put(
                draw(4, 6, 6, 4), NamedSharding(mesh, PartitionSpec("batch"))
            )
            kernel = draw(3, 3, 4, 1)
            types = [
                jax.jit(lambda x, k, f=f: jax.typeof(f(x, k)).sharding.spec and f(x, k))
                .lower(inputs, kernel)
                .out_info
                for f in (
                    ops.depthwise_conv,
                    lambda x, k: kd.depthwise_conv(x, k, plan="direct"),
                )
            ]
        assert str(types[0]) == str(types[1])

    def test_data_parallel_problem_is_a_share(self):
        """Under data parallelism the problem holds one device's share of the batch."""

        def problem(batch):
            shapes = (batch, 6, 6, 4), "float32", (3, 3, 4, 1)
            return on_one_device(
                depthwise_problem(*shapes, 1, "same", "channels_last", 1)
            )

        assert problem(8).batch == 8
        with data_parallel():
            assert problem(8).batch == 4
            assert problem(None).batch is None


@pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow")
class TestTensorFlow:
    def test_a_gpu_has_its_number_on_the_machine(self, monkeypatch):
        """Also where a program sees only some of the GPUs."""
        import tensorflow as tf

        gpus = [f"/physical_device:GPU:{n}" for n in range(2)]
        monkeypatch.setattr(backends.active, "list_gpus", lambda: ["/device:GPU:0"])
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
        for number in range(2):
            visible = gpus[number:]
            monkeypatch.setattr(
                tf.config, "get_visible_devices", lambda kind, found=visible: found
            )
            assert backends.active.accelerator_index() == number

    @plans
    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_in_graphs_of_unknown_shape(self, plan, jit_compile):
        import tensorflow as tf

        kernel = tf.Variable(draw(3, 3, 4, 1))
        for shape in [(None, 6, 6, 4), (None, None, None, 4)]:
            if jit_compile and None in shape[1:]:
                continue

            @tf.function(
                input_signature=[tf.TensorSpec(shape, "float64")],
                jit_compile=jit_compile,
                autograph=False,
            )
            def step(x):
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    outputs = kd.depthwise_conv(
                        x, kernel.value(), padding="same", plan=plan
                    )
                    loss = tf.reduce_sum(tf.tanh(outputs))
                return outputs, tape.gradient(loss, [x, kernel])

            inputs = draw(3, 6, 6, 4)
            outputs, gradients = step(inputs)
            stock, (by_inputs, by_kernel) = vjp(
                lambda x, k: ops.depthwise_conv(x, k, padding="same"),
                [inputs, tf.convert_to_tensor(kernel)],
                1 - tf.tanh(outputs) ** 2,
            )
            np.testing.assert_allclose(outputs, stock, atol=1e-11)
            np.testing.assert_allclose(gradients[0], by_inputs, atol=1e-11)
            np.testing.assert_allclose(gradients[1], by_kernel, atol=1e-11)

    def test_native_is_the_stock_graph(self):
        import tensorflow as tf

        def operations(convolve):
            @tf.function(autograph=False)
            def step(x, k):
                with tf.GradientTape() as tape:
                    tape.watch([x, k])
                    loss = tf.reduce_sum(convolve(x, k))
                return tape.gradient(loss, [x, k])

            graph = step.get_concrete_function(draw(2, 5, 5, 4), draw(3, 3, 4, 1)).graph
            return [operation.type for operation in graph.get_operations()]

        assert operations(kd.depthwise_conv) == operations(ops.depthwise_conv)

    def test_unknown_channels_are_stocks(self):
        import tensorflow as tf

        kernel = draw(3, 3, 4, 1)
        signature = [tf.TensorSpec((None,) * 4, "float64")]
        step = tf.function(
            lambda x: kd.depthwise_conv(x, kernel), signature, autograph=False
        )
        assert step(draw(2, 6, 6, 4)).shape == (2, 4, 4, 4)

    @plans
    def test_unknown_kernel_sizes_are_stocks(self, plan):
        import tensorflow as tf

        signature = [tf.TensorSpec((None, None, 4, 1), "float64")]
        inputs = draw(2, 6, 6, 4)
        step = tf.function(
            lambda k: kd.depthwise_conv(inputs, k, plan=plan), signature, False
        )
        assert step(draw(3, 3, 4, 1)).shape == (2, 4, 4, 4)
        for open_shape in ((None, None, 1, 8), (None, None, 4, None)):
            signature = [tf.TensorSpec(open_shape, "float64")]
            step = tf.function(
                lambda k: kd.conv(inputs, k, plan=plan), signature, False
            )
            kernel = draw(3, 3, open_shape[2], 8)
            if open_shape[2] == 4:  # else grouped: without XLA, stock has no kernel
                assert step(kernel).shape == (2, 4, 4, 8)
            else:
                assert step.get_concrete_function().output_shapes[-1] == 8

    @plans
    @pytest.mark.parametrize("batch", [2, None])
    @pytest.mark.parametrize("kind", ["second order", "forward mode", "cond"])
    def test_derivatives_of_a_function(self, plan, kind, batch):
        """Derivatives through a `tf.function`, which are in other graphs than its own.

        Gradients that held an operand of the function's graph failed there.
        """
        import tensorflow as tf

        inputs, kernel = draw(2, 5, 5, 4), draw(3, 3, 4, 1)

        def result_of(convolve):
            def call(x, k):
                if kind == "cond":
                    return tf.cond(x[0, 0, 0, 0] < 9, lambda: convolve(x, k), lambda: x)
                return convolve(x, k)

            signature = [
                tf.TensorSpec((batch, 5, 5, 4), "float64"),
                tf.TensorSpec((3, 3, 4, 1), "float64"),
            ]
            function = tf.function(lambda x, k: tf.tanh(call(x, k)), signature, False)
            if kind == "forward mode":
                tangents = inputs + 1, kernel - 1
                forward_mode = tf.autodiff.ForwardAccumulator
                with forward_mode((inputs, kernel), tangents) as accumulator:
                    outputs = function(inputs, kernel)
                return [accumulator.jvp(outputs)]
            with tf.GradientTape() as outer:
                outer.watch([inputs, kernel])
                with tf.GradientTape() as inner:
                    inner.watch(inputs)
                    loss = tf.reduce_sum(function(inputs, kernel))
                if kind == "second order":
                    loss = tf.reduce_sum(inner.gradient(loss, inputs) ** 2)
            return outer.gradient(loss, [inputs, kernel])

        def ours(x, k):
            return kd.depthwise_conv(x, k, 1, "same", plan=plan)

        def stock(x, k):
            return ops.depthwise_conv(x, k, 1, "same")

        for one, other in zip(result_of(ours), result_of(stock), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-10)

    @pytest.mark.parametrize("plan", ["direct", "diagonal:2:split"])
    def test_forward_mode_in_open_graphs(self, plan):
        """Forward mode in a graph of an open batch."""
        import tensorflow as tf

        kernel, results = draw(3, 3, 4, 1), []
        for chosen in ("native", plan):

            @tf.function(input_signature=[tf.TensorSpec((None, 5, 5, 4), "float64")])
            def step(x, chosen=chosen):
                with tf.autodiff.ForwardAccumulator(x, x + 1) as accumulator:
                    outputs = kd.depthwise_conv(x, kernel, 1, "same", plan=chosen)
                return accumulator.jvp(outputs)

            results.append(step(draw(2, 5, 5, 4)))
        np.testing.assert_allclose(*results, atol=1e-11)

    @pytest.mark.parametrize("jit_compile", [False, True])
    @pytest.mark.parametrize("plan", [*PLANS[1:], Plan("direct", "direct", "native")])
    def test_a_batch_may_turn_out_empty(self, plan, jit_compile):
        """A graph of an open batch takes an empty one, as replicas without images do.

        TensorFlow's dense convolutions fail on it, or return their inputs. XLA leaves
        out what is empty, and needs no condition.
        """
        import tensorflow as tf

        kernel = draw(3, 3, 2, 8)

        @tf.function(
            input_signature=[tf.TensorSpec((None, 6, 6, 4), "float64")],
            jit_compile=jit_compile,
        )
        def step(x):
            with tf.GradientTape() as tape:
                tape.watch([x, kernel])
                outputs = kd.conv(x, kernel, 2, "same", plan=plan)
                loss = tf.reduce_sum(outputs**2)
            return outputs, *tape.gradient(loss, [x, kernel])

        outputs, by_inputs, by_kernel = step(tf.zeros((0, 6, 6, 4), "float64"))
        assert outputs.shape == (0, 3, 3, 8)
        assert by_inputs.shape == (0, 6, 6, 4)
        np.testing.assert_array_equal(by_kernel, np.zeros((3, 3, 2, 8)))
        outputs, _, by_kernel = step(draw(2, 6, 6, 4))
        assert outputs.shape == (2, 3, 3, 8)
        assert float(tf.reduce_sum(by_kernel**2)) > 0
        if jit_compile:
            graph = step.get_concrete_function().graph
            assert not any("If" in each.type for each in graph.get_operations())

    def test_forward_accumulator(self):
        import tensorflow as tf

        inputs, kernel = draw(2, 5, 5, 4), draw(3, 3, 4, 1)
        results = []
        for convolve in (
            ops.depthwise_conv,
            lambda x, k: kd.depthwise_conv(x, k, plan="direct"),
        ):
            with tf.autodiff.ForwardAccumulator(inputs, inputs + 1) as accumulator:
                outputs = convolve(inputs, kernel)
            results.append(accumulator.jvp(outputs))
        np.testing.assert_allclose(*results, atol=1e-11)


@pytest.mark.skipif(BACKEND != "torch", reason="about torch")
class TestTorch:
    def graph(self, convolve, inputs, kernel):
        import torch

        graphs = []

        def keep(module, example_inputs):
            graphs.append(module)
            return module.forward

        torch._dynamo.reset()
        compiled = torch.compile(convolve, backend=keep, fullgraph=True)
        compiled(inputs, kernel)
        return [
            str((node.op, node.target, node.args, node.kwargs))
            for node in graphs[0].graph.nodes
        ]

    def test_native_is_the_stock_graph(self):
        inputs, kernel = draw(2, 5, 5, 4), draw(3, 3, 4, 1)
        ours = self.graph(
            lambda x, k: kd.depthwise_conv(x, k, padding="same"), inputs, kernel
        )
        stock = self.graph(
            lambda x, k: ops.depthwise_conv(x, k, padding="same"), inputs, kernel
        )
        assert ours == stock

    def test_native_saves_stock_autograd_graph(self):
        inputs, kernel = (
            draw(2, 5, 5, 4).requires_grad_(),
            draw(3, 3, 4, 1).requires_grad_(),
        )

        def chain(node):
            found = []
            while node is not None:
                found.append(type(node).__name__)
                node = node.next_functions[0][0] if node.next_functions else None
            return found

        ours = kd.depthwise_conv(inputs, kernel, padding="same")
        stock = ops.depthwise_conv(inputs, kernel, padding="same")
        assert chain(ours.grad_fn) == chain(stock.grad_fn)

    def test_what_is_frozen_is_not_computed(self, monkeypatch):
        from keras_diagwise.algorithms import Direct

        inputs, kernel = draw(2, 5, 5, 4), draw(3, 3, 4, 1).requires_grad_()

        def forbidden(*args):
            raise AssertionError("computed a gradient that nobody needs")

        monkeypatch.setattr(Direct, "input_gradient", forbidden)
        kd.depthwise_conv(inputs, kernel, plan="direct").sum().backward()
        assert kernel.grad is not None

    def test_compiles_as_often_as_stock(self):
        """Batches of many sizes are compiled as often as in stock."""
        import torch

        kernel = draw(3, 3, 4, 1)
        compilations = []
        for convolve in (ops.depthwise_conv, kd.depthwise_conv):
            count = torch._dynamo.testing.CompileCounter()
            torch._dynamo.reset()
            compiled = torch.compile(
                lambda x, f=convolve: f(x, kernel), backend=count, fullgraph=True
            )
            for size in (2, 3, 4, 5):
                assert compiled(draw(size, 6, 6, 4)).shape[0] == size
            compilations.append(count.frame_count)
        assert compilations[0] == compilations[1]

    def test_outputs_change_in_place(self):
        """Outputs take `+=` as stock's do: none is a view, which autograd would refuse
        to change."""
        inputs, kernel = draw(2, 6, 6, 4).requires_grad_(), draw(3, 3, 4, 1)
        found = []
        for plan in ("native", "direct", "diagonal", Plan("native", "direct")):
            outputs = kd.depthwise_conv(inputs, kernel, padding="same", plan=plan)
            outputs += inputs
            outputs.square().sum().backward()
            found.append(inputs.grad)
            inputs.grad = None
        for one in found:
            np.testing.assert_allclose(one, found[0], atol=1e-11)

    def test_another_device_is_stocks(self):
        """On another device than Keras's, as in a scope, stock's operation runs; the
        device that plans are made for stays Keras's."""
        backends.active.device.cache_clear()
        with keras.device("meta"):
            inputs, kernel = ops.ones((2, 6, 6, 4)), ops.ones((3, 3, 4, 1))
            assert backends.active.device().type != "meta"
            for plan in PLANS:
                outputs = kd.depthwise_conv(inputs, kernel, plan=plan)
                assert outputs.device.type == "meta"
                assert outputs.shape == (2, 4, 4, 4)

    def test_settings_of_tf32_may_differ(self):
        """The convolutions' setting alone is read: torch raises an error for that of
        all cuDNN once the recurrent layers' differs."""
        import torch

        from keras_diagwise.backends import torch_trace

        convolutions = torch.backends.cudnn.conv
        before = torch.backends.cudnn.allow_tf32
        try:
            for value in ("ieee", "tf32"):
                convolutions.fp32_precision = value
                allowed, *_ = torch_trace.cudnn_flags()
                assert allowed == (value == "tf32")
                backends.active.set_flags(
                    backends.active.flags() | {"cudnn_allow_tf32": not allowed}
                )
                assert torch_trace.cudnn_flags()[0] != allowed
        finally:
            torch.backends.cudnn.allow_tf32 = before

    def test_settings_before_torch_2_9_are_read(self, monkeypatch):
        import torch

        from keras_diagwise.backends import torch_trace

        settings = {"allow_tf32": False, "benchmark": True, "deterministic": False}
        cudnn = SimpleNamespace(**settings)
        monkeypatch.setattr(torch.backends, "cudnn", cudnn)
        assert torch_trace.cudnn_flags() == tuple(settings.values())

    def test_autocast_and_tracing_are_stocks(self):
        import torch

        inputs, kernel = draw(2, 6, 6, 4).float(), draw(3, 3, 4, 1).float()
        for plan in PLANS:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                ours = kd.depthwise_conv(inputs, kernel, plan=plan)
                stock = ops.depthwise_conv(inputs, kernel)
            assert ours.dtype == stock.dtype
            torch.testing.assert_close(ours, stock)
        traced = torch.jit.trace(lambda x: kd.depthwise_conv(x, kernel), inputs)
        torch.testing.assert_close(traced(inputs), ops.depthwise_conv(inputs, kernel))

    def test_function_transforms_run_native(self):
        import torch

        inputs, kernel = draw(2, 5, 5, 4), draw(3, 3, 4, 1)

        def ours(x, k):
            return kd.depthwise_conv(x, k, padding="same", plan="direct")

        def stock(x, k):
            return ops.depthwise_conv(x, k, padding="same")

        def of_each_row(g):
            """The transform begins in the backward pass."""
            x, k = inputs.clone().requires_grad_(), kernel.clone().requires_grad_()
            outputs = g(x, k).sum((1, 2))[0]
            return torch.vmap(
                lambda row: torch.autograd.grad(outputs, (x, k), row, retain_graph=True)
            )(torch.eye(4, dtype=torch.float64))

        for f in (
            of_each_row,
            lambda g: torch.func.jvp(g, (inputs, kernel), (inputs + 1, kernel - 1)),
            lambda g: torch.func.grad(lambda x: g(x, kernel).tanh().sum())(inputs),
        ):
            one, other = (keras.tree.flatten(f(g)) for g in (ours, stock))
            for a, b in zip(one, other, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-11)
