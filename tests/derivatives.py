"""Vector–Jacobian products in the active backend."""

import keras


def vjp(function, operands, cotangent):
    """The value of `function` at `operands`, and the gradients with respect to
    each: under jit on JAX, eagerly on the others."""
    return {"jax": jax_vjp, "tensorflow": tensorflow_vjp, "torch": torch_vjp}[
        keras.backend.backend()
    ](function, operands, cotangent)


def jax_vjp(function, operands, cotangent):
    import jax

    def both(operands, cotangent):
        value, pull_back = jax.vjp(function, *operands)
        return value, pull_back(cotangent)

    return jax.jit(both)(operands, cotangent)


def tensorflow_vjp(function, operands, cotangent):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(operands)
        value = function(*operands)
    return value, tape.gradient(value, operands, cotangent)


def compiled_tensorflow_vjp(function, operands, cotangent, jit_compile):
    """The same in a graph, compiled by XLA or not."""
    import tensorflow as tf

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(operands, cotangent):
        return tensorflow_vjp(function, operands, cotangent)

    return run(operands, cotangent)


def torch_vjp(function, operands, cotangent):
    import torch

    operands = [operand.detach().requires_grad_() for operand in operands]
    value = function(*operands)
    return value.detach(), torch.autograd.grad(value, operands, cotangent)
