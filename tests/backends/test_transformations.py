"""Derivatives of every kind, and the transformations of each backend: what stock can,
each plan can, and gives the same."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
from keras import ops

import keras_diagwise as kd
from keras_diagwise import Plan
from tests.behaviours import DERIVATIVES
from tests.strategies import to_numpy

BACKEND = keras.backend.backend()
PLANS = ("direct", Plan("diagonal:4:split", "diagonal:4", "diagonal:2:split"))
if BACKEND == "tensorflow":
    PLANS = (*PLANS, "direct:compiled")
LAST, FIRST = "channels_last", "channels_first"
DATA_FORMAT = FIRST if BACKEND == "torch" else LAST
"""With which stock can be mapped."""
SHAPES = {LAST: (2, 5, 5, 4), FIRST: (2, 4, 5, 5)}
SHAPE, KERNEL = SHAPES[DATA_FORMAT], (3, 3, 2, 6)


def draw(*shape):
    generator = np.random.default_rng(sum(shape))
    return ops.convert_to_tensor(generator.normal(size=shape), dtype="float64")


def convolution(plan):
    """The stock operation for `None`."""
    if plan is None:
        return lambda x, k, form=DATA_FORMAT: ops.conv(x, k, 1, "same", form)
    return lambda x, k, form=DATA_FORMAT: kd.conv(x, k, 1, "same", form, plan=plan)


def depthwise(plan):
    """The same of a depthwise kernel with as many elements."""
    function = ops.depthwise_conv
    if plan is not None:
        function = functools.partial(kd.depthwise_conv, plan=plan)

    def call(x, k, form=DATA_FORMAT):
        return function(x, ops.reshape(k, (3, 3, 4, 3)), 1, "same", form)

    return call


def by_groups(x, k, form=DATA_FORMAT):
    """What the grouped convolution is, by stock's dense ones."""
    x = x if form == LAST else ops.transpose(x, (0, 2, 3, 1))
    pairs = zip(ops.split(x, 2, -1), ops.split(k, 2, -1), strict=True)
    parts = [ops.conv(*pair, 1, "same", LAST) for pair in pairs]
    outputs = ops.concatenate(parts, -1)
    return outputs if form == LAST else ops.transpose(outputs, (0, 3, 1, 2))


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
    import jax.export

    inputs, kernel = draw(*SHAPE), draw(*KERNEL)
    many, kernels = draw(3, *SHAPE), draw(3, *KERNEL)
    tangents = inputs + 1, kernel - 1

    def loss(f):
        return lambda x, k: (jax.numpy.tanh(f(x, k)) ** 2).sum()

    def second_order(f):
        return jax.grad(lambda k: (jax.grad(loss(f))(inputs, k) ** 2).sum())(kernel)

    def mapped(f, form=DATA_FORMAT):
        inputs = draw(3, *SHAPES[form])
        return jax.vmap(lambda x: f(x, kernel, form))(inputs)

    def gradients(f):
        return jax.grad(loss(f), (0, 1))

    def unknown(f):
        sizes = jax.export.symbolic_shape("batch, height, width")
        shape = jax.ShapeDtypeStruct((*sizes, SHAPE[-1]), "float64")
        step = jax.jit(lambda x: jax.grad(loss(f), 1)(x, kernel))
        return jax.export.export(step)(shape).call(inputs)

    return {
        "gradient": lambda f: gradients(f)(inputs, kernel),
        "second order": second_order,
        "forward mode": lambda f: jax.jvp(f, (inputs, kernel), tangents),
        "forward over reverse": lambda f: jax.jvp(
            gradients(f), (inputs, kernel), tangents
        ),
        "Hessian": lambda f: jax.hessian(loss(f), 1)(inputs, kernel),
        "map, channels last": lambda f: mapped(f, LAST),
        "map, channels first": lambda f: mapped(f, FIRST),
        "map over kernels": lambda f: jax.vmap(f, (None, 0))(inputs, kernels),
        "gradient of each example": lambda f: jax.vmap(jax.grad(loss(f), 1), (0, None))(
            many, kernel
        ),
        "checkpoint": lambda f: jax.grad(jax.checkpoint(loss(f)))(inputs, kernel),
        "remat": lambda f: jax.grad(keras.remat(loss(f)), 1)(inputs, kernel),
        "compiled": lambda f: jax.jit(gradients(f))(inputs, kernel),
        "compiled whole": lambda f: (
            jax.jit(gradients(f)).lower(inputs, kernel).compile()(inputs, kernel)
        ),
        "compiled map": lambda f: jax.jit(functools.partial(mapped, f))(),
        "compiled forward mode": lambda f: jax.jit(
            lambda *operands: jax.jvp(f, operands, tangents)
        )(inputs, kernel),
        "unknown spatial shape": unknown,
    }


def tensorflow_behaviours():
    import tensorflow as tf

    inputs, kernel = draw(*SHAPE), draw(*KERNEL)
    many, kernels = draw(3, *SHAPE), draw(3, *KERNEL)
    function = functools.partial(tf.function, autograph=False)
    forward_mode = tf.autodiff.ForwardAccumulator
    tangents = inputs + 1, kernel - 1

    def loss(f):
        return lambda x, k: tf.reduce_sum(tf.tanh(f(x, k)) ** 2)

    def gradient(function, *operands):
        with tf.GradientTape() as tape:
            tape.watch(operands)
            value = function(*operands)
        return tape.gradient(value, operands)

    def of_kernel(f, x):
        return gradient(lambda k: loss(f)(x, k), kernel)[0]

    def second_order(f):
        def squares(k):
            return tf.reduce_sum(gradient(lambda x: loss(f)(x, k), inputs)[0] ** 2)

        return gradient(squares, kernel)

    def forward(f):
        with forward_mode((inputs, kernel), tangents) as accumulator:
            outputs = f(inputs, kernel)
        return outputs, accumulator.jvp(outputs)

    def forward_over_reverse(f):
        with forward_mode(kernel, kernel - 1) as accumulator:
            found = of_kernel(f, inputs)
        return accumulator.jvp(found)

    def hessian(f):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            found = of_kernel(f, inputs)
        return tape.jacobian(found, kernel)

    def mapped(f, form=DATA_FORMAT):
        inputs = draw(3, *SHAPES[form])
        return tf.vectorized_map(lambda x: f(x, kernel, form), inputs)

    def unknown(f):
        signature = [tf.TensorSpec((None, None, None, 4), "float64")]
        return function(lambda x: of_kernel(f, x), input_signature=signature)(inputs)

    return {
        "gradient": lambda f: gradient(loss(f), inputs, kernel),
        "second order": second_order,
        "forward mode": forward,
        "forward over reverse": forward_over_reverse,
        "Hessian": hessian,
        "map, channels last": lambda f: mapped(f, LAST),
        "map, channels first": lambda f: mapped(f, FIRST),
        "map over kernels": lambda f: tf.vectorized_map(
            lambda k: f(inputs, k), kernels
        ),
        "gradient of each example": lambda f: tf.vectorized_map(
            functools.partial(of_kernel, f), many
        ),
        "checkpoint": lambda f: gradient(tf.recompute_grad(loss(f)), inputs, kernel),
        "remat": lambda f: gradient(keras.remat(loss(f)), inputs, kernel),
        "compiled": lambda f: function(lambda: gradient(loss(f), inputs, kernel))(),
        "compiled whole": lambda f: function(
            lambda: gradient(loss(f), inputs, kernel), jit_compile=True
        )(),
        "compiled map": lambda f: function(lambda: mapped(f))(),
        "compiled forward mode": lambda f: function(lambda: forward(f))(),
        "unknown spatial shape": unknown,
    }


def torch_behaviours():
    import torch
    from torch.utils.checkpoint import checkpoint

    inputs, kernel = draw(*SHAPE), draw(*KERNEL)
    many, kernels = draw(3, *SHAPE), draw(3, *KERNEL)
    func, forward_mode = torch.func, torch.autograd.forward_ad
    tangents = inputs + 1, kernel - 1

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

    def dual(f):
        with forward_mode.dual_level():
            pairs = zip((inputs, kernel), tangents, strict=True)
            outputs = f(*(forward_mode.make_dual(*pair) for pair in pairs))
            return tuple(forward_mode.unpack_dual(outputs))

    def forward(f, *operands):
        return func.jvp(f, operands, tangents)

    def compiled(f, **options):
        torch._dynamo.reset()
        return torch.compile(f, backend="aot_eager", **options)

    def compiled_gradient(f, **options):
        step = compiled(f, **options)
        return gradient(lambda x, k: (step(x, k) ** 2).sum(), inputs, kernel)

    def mapped(f, form=DATA_FORMAT):
        inputs = draw(3, *SHAPES[form])
        return func.vmap(lambda x: f(x, kernel, form))(inputs)

    return {
        "gradient": lambda f: gradient(loss(f), inputs, kernel),
        "second order": second_order,
        "forward mode": lambda f: (forward(f, inputs, kernel), dual(f)),
        "forward over reverse": lambda f: forward(
            func.grad(loss(f), (0, 1)), inputs, kernel
        ),
        "Hessian": lambda f: func.hessian(loss(f), 1)(inputs, kernel),
        "map, channels last": lambda f: mapped(f, LAST),
        "map, channels first": lambda f: mapped(f, FIRST),
        "map over kernels": lambda f: func.vmap(f, (None, 0))(inputs, kernels),
        "gradient of each example": lambda f: func.vmap(
            func.grad(loss(f), 1), (0, None)
        )(many, kernel),
        "checkpoint": lambda f: gradient(
            lambda x, k: checkpoint(loss(f), x, k, use_reentrant=False), inputs, kernel
        ),
        "remat": lambda f: gradient(keras.remat(loss(f)), inputs, kernel),
        "compiled": compiled_gradient,
        "compiled whole": lambda f: compiled_gradient(f, fullgraph=True),
        "compiled map": lambda f: compiled(
            lambda x, k: func.vmap(f, (0, None))(x, k), fullgraph=True
        )(many, kernel),
        "compiled forward mode": lambda f: compiled(
            functools.partial(forward, f), fullgraph=True
        )(inputs, kernel),
        "unknown spatial shape": lambda f: compiled_gradient(f, dynamic=True),
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


def check(behaviour, made, plans, cell):
    """Compares each plan with stock, or shows that neither can."""
    stock = outcome(behaviour, made(None))
    if cell.neither or cell.stock_cant:
        assert isinstance(stock, Exception), "stock can"
    if cell.stock_cant:
        stock = outcome(behaviour, by_groups)
    for plan in plans:
        ours = outcome(behaviour, made(plan))
        if cell.neither:
            assert type(ours) is type(stock), plan
            continue
        for each in (stock, ours):
            assert not isinstance(each, Exception), (plan, each)
        tolerances = {"rtol": 0} if cell.by_stock else {"rtol": 1e-9, "atol": 1e-10}
        for one, other in zip(ours, stock, strict=True):
            np.testing.assert_allclose(one, other, **tolerances, err_msg=str(plan))


def test_every_derivative_is_tested():
    """Every derivative of the table is tested here."""
    assert list(BEHAVIOURS) == list(DERIVATIVES)


@pytest.mark.parametrize("name", DERIVATIVES)
def test_what_stock_can_each_plan_can(name):
    check(BEHAVIOURS[name], convolution, PLANS, DERIVATIVES[name][BACKEND])


@pytest.mark.parametrize("name", DERIVATIVES)
def test_depthwise_takes_stocks_derivatives(name):
    """A depthwise plan takes every derivative that stock takes.

    On TensorFlow stock can more here.
    """
    cell = dataclasses.replace(DERIVATIVES[name][BACKEND], stock_cant="")
    check(BEHAVIOURS[name], depthwise, PLANS[:1], cell)


@pytest.mark.parametrize("name", ["gradient", "second order"])
def test_what_stock_can_a_layer_can(name):
    check(BEHAVIOURS[name], separable, PLANS[:1], DERIVATIVES[name][BACKEND])
