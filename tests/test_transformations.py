"""Derivatives of every kind, and the transformations of each backend: what stock can,
each plan can, and gives the same."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_diagwise as kd
from keras_diagwise import Plan
from tests.strategies import to_numpy

BACKEND = keras.backend.backend()
PLANS = ("direct", Plan("diagonal:4:split", "diagonal:4", "diagonal:2:split"))
SHAPE, KERNEL = (2, 5, 5, 4), (3, 3, 2, 6)
DATA_FORMAT = "channels_last"
if BACKEND == "tensorflow":
    PLANS = (*PLANS, "direct:compiled")
if BACKEND == "torch":  # where stock can't be mapped with the channels last
    SHAPE, DATA_FORMAT = (2, 4, 5, 5), "channels_first"


def draw(*shape):
    generator = np.random.default_rng(sum(shape))
    return ops.convert_to_tensor(generator.normal(size=shape), dtype="float64")


def convolution(plan):
    """The stock operation for `None`."""
    if plan is None:
        return lambda x, k: ops.conv(x, k, 1, "same", DATA_FORMAT)
    return lambda x, k: kd.conv(x, k, 1, "same", DATA_FORMAT, plan=plan)


def separable(plan):
    """The stock layer for `None`, as a function of its inputs and depthwise kernel."""
    arguments = {"padding": "same", "data_format": DATA_FORMAT, "dtype": "float64"}
    if plan is None:
        layer = keras.layers.SeparableConv2D(3, 3, **arguments)
    else:
        layer = kd.DiagonalwiseSeparableConv2D(3, 3, **arguments, plan=plan)
    layer.build(SHAPE)
    layer.set_weights([np.ones(weight.shape) for weight in layer.weights])
    others = [weight.value for weight in layer.weights[1:]]

    def call(x, k):
        kernel = ops.reshape(ops.mean(k, axis=(2, 3)), (3, 3, 1, 1))
        values = [kernel * ops.ones((3, 3, 4, 1), "float64"), *others]
        outputs, _ = layer.stateless_call(values, [], x)
        return outputs

    return call


def jax_behaviours():
    import jax

    inputs, kernel = draw(*SHAPE), draw(*KERNEL)
    many, kernels = draw(3, *SHAPE), draw(3, *KERNEL)

    def loss(f):
        return lambda x, k: (jax.numpy.tanh(f(x, k)) ** 2).sum()

    return {
        "gradient": lambda f: jax.grad(loss(f), (0, 1))(inputs, kernel),
        "second order": lambda f: jax.grad(
            lambda k: (jax.grad(loss(f))(inputs, k) ** 2).sum()
        )(kernel),
        "jvp": lambda f: jax.jvp(f, (inputs, kernel), (inputs + 1, kernel - 1)),
        "hessian": lambda f: jax.hessian(loss(f), 1)(inputs, kernel),
        "vmap": lambda f: jax.vmap(f, (0, None))(many, kernel),
        "vmap of kernels": lambda f: jax.vmap(f, (None, 0))(inputs, kernels),
        "vmap of gradients": lambda f: jax.vmap(jax.grad(loss(f), 1), (0, None))(
            many, kernel
        ),
        "checkpoint": lambda f: jax.grad(jax.checkpoint(loss(f)))(inputs, kernel),
        "remat": lambda f: jax.grad(keras.remat(loss(f)), 1)(inputs, kernel),
        "jit": lambda f: jax.jit(jax.grad(loss(f), (0, 1)))(inputs, kernel),
    }


def tensorflow_behaviours():
    import tensorflow as tf

    inputs, kernel = draw(*SHAPE), draw(*KERNEL)
    many = draw(3, *SHAPE)

    def loss(f):
        return lambda x, k: tf.reduce_sum(tf.tanh(f(x, k)) ** 2)

    def gradient(function, *operands):
        with tf.GradientTape() as tape:
            tape.watch(operands)
            value = function(*operands)
        return tape.gradient(value, operands)

    def second_order(f):
        def of_kernel(k):
            return tf.reduce_sum(gradient(lambda x: loss(f)(x, k), inputs)[0] ** 2)

        return gradient(of_kernel, kernel)

    def forward(f):
        with tf.autodiff.ForwardAccumulator(
            (inputs, kernel), (inputs + 1, kernel - 1)
        ) as accumulator:
            outputs = f(inputs, kernel)
        return outputs, accumulator.jvp(outputs)

    def forward_over_reverse(f):
        with tf.autodiff.ForwardAccumulator(kernel, kernel - 1) as accumulator:
            found = gradient(lambda k: loss(f)(inputs, k), kernel)[0]
        return accumulator.jvp(found)

    def unknown(f):
        signature = [tf.TensorSpec((None, None, None, 4), "float64")]
        step = tf.function(
            lambda x: gradient(lambda k: loss(f)(x, k), kernel),
            input_signature=signature,
            autograph=False,
        )
        return step(inputs)

    return {
        "gradient": lambda f: gradient(loss(f), inputs, kernel),
        "second order": second_order,
        "ForwardAccumulator": forward,
        "forward over reverse": forward_over_reverse,
        "vectorized_map": lambda f: tf.vectorized_map(lambda x: f(x, kernel), many),
        "unknown shapes": unknown,
        "graph": lambda f: tf.function(
            lambda: gradient(loss(f), inputs, kernel), autograph=False
        )(),
        "XLA": lambda f: tf.function(
            lambda: gradient(loss(f), inputs, kernel), autograph=False, jit_compile=True
        )(),
        "recompute_grad": lambda f: gradient(keras.remat(loss(f)), inputs, kernel),
    }


def torch_behaviours():
    import torch

    inputs, kernel = draw(*SHAPE), draw(*KERNEL)
    many = draw(3, *SHAPE)
    func = torch.func

    def loss(f):
        return lambda x, k: (f(x, k).tanh() ** 2).sum()

    def gradient(function, *operands):
        operands = [each.detach().requires_grad_() for each in operands]
        return torch.autograd.grad(function(*operands), operands)

    def second_order(f):
        x = inputs.detach().requires_grad_()
        k = kernel.detach().requires_grad_()
        (first,) = torch.autograd.grad(loss(f)(x, k), x, create_graph=True)
        return torch.autograd.grad((first**2).sum(), k)

    def compiled(f):
        torch._dynamo.reset()
        step = torch.compile(f, backend="aot_eager", fullgraph=True)
        return gradient(lambda x, k: (step(x, k) ** 2).sum(), inputs, kernel)

    return {
        "gradient": lambda f: gradient(loss(f), inputs, kernel),
        "second order": second_order,
        "jvp": lambda f: func.jvp(f, (inputs, kernel), (inputs + 1, kernel - 1)),
        "grad": lambda f: func.grad(loss(f), (0, 1))(inputs, kernel),
        "hessian": lambda f: func.hessian(loss(f), 1)(inputs, kernel),
        "vmap": lambda f: func.vmap(f, (0, None))(many, kernel),
        "vmap of gradients": lambda f: func.vmap(func.grad(loss(f), 1), (0, None))(
            many, kernel
        ),
        "compile": compiled,
        "remat": lambda f: gradient(keras.remat(loss(f)), inputs, kernel),
    }


BEHAVIOURS = {
    "jax": jax_behaviours,
    "tensorflow": tensorflow_behaviours,
    "torch": torch_behaviours,
}[BACKEND]()


def outcome(behaviour, function):
    """What a behaviour gives, as arrays, or the error."""
    try:
        return [to_numpy(each) for each in keras.tree.flatten(behaviour(function))]
    except Exception as error:
        return error


def check(behaviour, made, plans):
    """Compares each plan with stock."""
    stock = outcome(behaviour, made(None))
    assert not isinstance(stock, Exception), stock
    for plan in plans:
        ours = outcome(behaviour, made(plan))
        assert not isinstance(ours, Exception), (plan, ours)
        for one, other in zip(ours, stock, strict=True):
            np.testing.assert_allclose(
                one, other, rtol=1e-9, atol=1e-10, err_msg=str(plan)
            )


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_what_stock_can_each_plan_can(name):
    check(BEHAVIOURS[name], convolution, PLANS)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow")
def test_gradients_are_mapped_where_stock_can_not():
    """Keras's compilation by XLA is lost in the loop over the examples, and what
    TensorFlow runs instead has no gradient for groups on CPU (seen in 2.21)."""
    import tensorflow as tf

    kernel, many = draw(*KERNEL), draw(3, *SHAPE)

    def of_kernel(f):
        def gradient(x):
            with tf.GradientTape() as tape:
                tape.watch(kernel)
                value = tf.reduce_sum(f(x, kernel) ** 2)
            return tape.gradient(value, kernel)

        return gradient

    def mapped(f):
        return tf.vectorized_map(of_kernel(f), many)

    assert isinstance(outcome(mapped, convolution(None)), Exception)
    expected = np.stack([of_kernel(convolution(None))(x) for x in many])
    for plan in PLANS:
        (found,) = outcome(mapped, convolution(plan))
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["gradient", "second order"])
def test_what_stock_can_a_layer_can(name):
    check(BEHAVIOURS[name], separable, PLANS[:1])


@pytest.mark.skipif(BACKEND != "torch", reason="about torch")
def test_a_vmap_compiles_in_full_as_in_stock():
    """Dynamo can't tell inside of it whether a functorch transform is active: the
    call is stock there."""
    import torch

    inputs, kernel = draw(3, *SHAPE), draw(*KERNEL)

    def mapped(f):
        torch._dynamo.reset()
        function = torch.func.vmap(lambda x: f(x, kernel))
        return torch.compile(function, backend="aot_eager", fullgraph=True)(inputs)

    ours, stock = (outcome(mapped, convolution(plan)) for plan in ("direct", None))
    np.testing.assert_allclose(ours[0], stock[0], atol=1e-11)
