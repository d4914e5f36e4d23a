"""Vector–Jacobian products in the active backend."""

import keras


def vjp(function, operands, cotangent):
    """The value of `function` at `operands`, and the gradients with respect to
    each, compiled as a model's step is on JAX."""
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


def torch_vjp(function, operands, cotangent):
    import torch

    operands = [operand.detach().requires_grad_() for operand in operands]
    value = function(*operands)
    return value.detach(), torch.autograd.grad(value, operands, cotangent)
