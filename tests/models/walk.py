"""Walks two graphs of objects side by side, by what the garbage collector and the
interpreter know, and nothing of how a copy is made."""

from __future__ import annotations

import collections
import enum
import gc
import inspect
import re
import sys
import types
import weakref

import keras
import numpy as np

BACKEND = keras.backend.backend()
STATELESS = (
    *(type(None), bool, int, float, complex, str, bytes, range, slice, enum.Enum),
    *(type, types.ModuleType, types.CodeType, property, np.generic, np.dtype),
    *(type(...), types.GenericAlias, types.UnionType, inspect.Signature),
    *(types.WrapperDescriptorType, types.MethodDescriptorType, inspect.Parameter),
    *(re.Pattern, np.ufunc),
)
COMPILED = ("train_function", "test_function", "predict_function")


def backends_own():
    """What all models of a process have in common, and types of tensors."""
    if BACKEND == "jax":
        import jax

        shared = (jax.Device, jax.sharding.Sharding, jax.sharding.Mesh)
        return (jax.Array,), shared
    if BACKEND == "tensorflow":
        import tensorflow as tf

        shared = (tf.Tensor, tf.DType, tf.TensorShape, tf.TypeSpec)
        return (tf.Variable,), (*shared, tf.distribute.Strategy)
    import torch

    return (torch.Tensor,), (torch.dtype, torch.device, torch.Size)


TENSORS, SHARED = backends_own()
PROXIES = ("_DictWrapper", "_TupleWrapper")


def is_held(each):
    """Whether a module holds a function."""
    if isinstance(each, types.BuiltinFunctionType):
        return isinstance(each.__self__, types.ModuleType | type | None)
    if not isinstance(each, types.FunctionType):
        return False
    found = sys.modules.get(each.__module__)
    for name in each.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is each


def is_leaf(each):
    return isinstance(each, (*STATELESS, *SHARED)) or is_held(each)


def children(each):
    """What an object holds, in an order that a copy has too, and how it is called."""
    if isinstance(each, keras.Model):
        return [(n, v) for n, v in vars(each).items() if n not in COMPILED]
    if isinstance(each, (*TENSORS, np.ndarray)):
        return [*named(each), *enumerate(each.flat if is_of_objects(each) else ())]
    if isinstance(each, types.FunctionType):
        closure = [contents(cell) for cell in each.__closure__ or ()]
        return enumerate([*closure, each.__defaults__, each.__kwdefaults__, vars(each)])
    if isinstance(each, types.MethodType):
        return enumerate([each.__self__, each.__func__])
    if isinstance(each, weakref.ref):
        return [("referent", each())]
    if type(each).__name__ in PROXIES:
        return [("wrapped", each.__wrapped__)]
    if isinstance(each, dict):
        items = [(f"{k!r:.40}", part) for k, v in each.items() for part in (k, v)]
        return [*items, *vars_of(each)]
    if isinstance(each, list | tuple | collections.deque | set | frozenset):
        return [*enumerate(each), *vars_of(each)]
    if vars_of(each):
        return vars_of(each)
    return enumerate(x for x in gc.get_referents(each) if not isinstance(x, type))


def vars_of(each):
    return list(getattr(each, "__dict__", {}).items())


def named(tensor):
    """What a user may have set on a tensor."""
    if BACKEND != "torch" or isinstance(tensor, np.ndarray):
        return []
    names = ("grad", "requires_grad", "_backward_hooks", "_post_accumulate_grad_hooks")
    return [*((name, getattr(tensor, name)) for name in names), *vars_of(tensor)]


def is_of_objects(array):
    return isinstance(array, np.ndarray) and array.dtype.hasobject


def contents(cell):
    try:
        return cell.cell_contents
    except ValueError:
        return None


def kind(each):
    """Its type; TensorFlow has several of variables, by where they were made."""
    return TENSORS if isinstance(each, TENSORS) else type(each)


def value(each):
    """What of an object can be compared at once."""
    if isinstance(each, TENSORS):
        array = keras.ops.convert_to_numpy(each)
        said = [getattr(each, name, None) for name in ("name", "trainable")]
        return str(each.dtype), array.shape, array.tobytes(), said
    if isinstance(each, np.ndarray) and not each.dtype.hasobject:
        return str(each.dtype), each.shape, each.tobytes()
    return repr(each) if isinstance(each, float | complex) else None


class Walk:
    """The pairs of a model's objects and a copy's.

    Raises:
        AssertionError: if they differ, with the path, or share what can change.
    """

    def __init__(self, original, copy):
        self.twins = {}
        self.originals = {}
        self.kept = []
        self.names = []
        waiting = collections.deque([(original.name, original, copy)])
        while waiting:
            path, one, other = waiting.popleft()
            self.kept += [one, other]
            assert kind(one) is kind(other), (path, type(one), type(other))
            assert value(one) == value(other), (path, "differs", one, other)
            if is_leaf(one):
                self.names.append((path, one, other))
            elif id(one) in self.twins:
                assert self.twins[id(one)] is other, (path, "is shared otherwise")
            else:
                self.meet(path, one, other)
                if one is not other:
                    waiting.extend(self.parts(path, one, other))
        self.keys = {
            each._unique_id: self.twins[id(each)]._unique_id
            for each in self.kept
            if hasattr(each, "_unique_id") and id(each) in self.twins
        }
        for path, one, other in self.names:
            same = self.translated(one) == other or one is other or one != one
            assert same, (path, one, other)

    def meet(self, path, one, other):
        immutable = isinstance(one, tuple | frozenset | types.MethodType | weakref.ref)
        if isinstance(one, types.FunctionType):
            immutable = not one.__closure__ and not vars(one)
        assert immutable or one is not other, (path, "is in both", type(one))
        self.twins[id(one)] = other
        before = self.originals.setdefault(id(other), one)
        assert immutable or before is one, (path, "is one for two")

    def parts(self, path, one, other):
        """Sets have no order: plain elements are compared at the end, others by what
        they are called."""
        if isinstance(one, set | frozenset):
            plain, of_other = ({x for x in s if is_leaf(x)} for s in (one, other))
            self.names.append((path, frozenset(plain), frozenset(of_other)))
            rest = ([x for x in s if not is_leaf(x)] for s in (one, other))
            ranked = (sorted(each, key=str) for each in rest)
            return [(f"{path}{{}}", a, b) for a, b in zip(*ranked, strict=True)]
        left, right = list(children(one)), list(children(other))
        assert len(left) == len(right), (path, len(left), len(right), left, right)
        return [
            (f"{path}.{name}", part, twin)
            for (name, part), (_, twin) in zip(left, right, strict=True)
        ]

    def translated(self, name):
        """What a copy must have in place of an object's `id`, or a key with it."""
        if isinstance(name, frozenset):
            return frozenset(map(self.translated, name))
        if type(name) is int and name in self.twins:
            return id(self.twins[name])
        if type(name) is str and name in self.keys:
            return self.keys[name]
        if type(name) is str and "_ib-" in name:
            number, _, place = name.partition("_ib-")
            return f"{self.translated(int(number))}_ib-{place}"
        return name
