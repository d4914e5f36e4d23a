"""Functions compiled by torch's Inductor, each whole and for itself."""

from __future__ import annotations

import itertools
import sys
import types
import warnings

import torch


def compiled_whole(function, **options):
    """The function compiled for fixed shapes, without graph breaks."""
    return torch.compile(apart(function), fullgraph=True, dynamic=False, **options)


def apart(function):
    """A function with its own code object: Dynamo counts compilations per code object,
    and gives up after a few (seen in 2.13)."""
    name = f"run_{next(NUMBERS)}"

    def run(*operands):
        return function(*operands)

    code = run.__code__.replace(co_name=name)
    if sys.version_info >= (3, 11):  # 3.10 has no other name of a code
        code = code.replace(co_qualname=name)
    return types.FunctionType(code, globals(), name, closure=run.__closure__)


NUMBERS = itertools.count()


def compiled_with_fallback(function):
    """The function, compiled whole for the shapes and dtypes of its first call, or
    unchanged if that fails.

    Guards are kept on tensors only: `keras.ops` counts its calls, and Dynamo would
    recompile for each count. That is safe as long as the function depends on nothing
    else and is compiled in one piece: code after a graph break does depend on more. In
    a trace it is the function itself.
    """
    guards = {"guard_filter_fn": torch.compiler.keep_tensor_guards_unsafe}
    compiled = compiled_whole(function, options=guards)
    chosen = None

    def call(*operands):
        nonlocal chosen
        if torch.compiler.is_compiling():
            return function(*operands)
        operands = tuple(each.detach() for each in operands)
        if chosen is not None:
            return chosen(*operands)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Dynamo, about Keras's caches
            failures = torch._dynamo.exc
            try:
                result = compiled(*operands)
                chosen = compiled
            except (
                failures.TorchDynamoException,
                failures.FailOnRecompileLimitHit,
            ):
                chosen = function
                result = function(*operands)
        return result

    return call
