"""The kinds of objects, and which an object is of."""

from __future__ import annotations

import collections
import enum
import inspect
import re
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_diagwise import backends
from keras_diagwise.models.attributes import attributes_of, put_attributes
from keras_diagwise.models.kind import Content, Kind

IMMUTABLE = (
    *(type(None), bool, int, float, complex, str, bytes, range, slice, enum.Enum),
    *(type, types.ModuleType, types.CodeType, property, np.generic, np.dtype),
    *(type(...), types.GenericAlias, types.UnionType, np.ufunc, re.Pattern),
    *(types.WrapperDescriptorType, types.MethodDescriptorType, inspect.Signature),
    *backends.active.SHARED,
)

NEW_OBJECT = object().__reduce_ex__(4)[0]
"""Function by which Python makes an object that is only its attributes."""


class Plain(Kind):
    """An object of a class written in Python: attributes and nothing else."""

    def make(self, each, items):
        return object.__new__(type(each))


class Dictionary(Kind):
    """A dictionary, by the methods of the built-in class: Keras's own track items."""

    def __init__(self, base: type[dict]):
        self._base = base

    def items(self, each):
        return [part for pair in self._base.items(each) for part in pair]

    def make(self, each, items):
        return self._base.__new__(type(each))

    def put_items(self, each, items):
        self._base.clear(each)
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._base.__setitem__(each, key, value)

    def labels(self, items):
        return (f"[{key!r:.60}]" for key in items[::2] for _ in range(2))


class DefaultDictionary(Dictionary):
    """A dictionary with a default factory, which is stored as its first value."""

    def items(self, each):
        return ["default_factory", each.default_factory, *super().items(each)]

    def put_items(self, each, items):
        each.default_factory = items[1]
        super().put_items(each, items[2:])


class Sequence(Kind):
    """A list, set or deque, by the methods of the built-in class."""

    def __init__(self, base: Any, extend: Callable[[Any, list], None]):
        self._base, self._extend = base, extend

    def items(self, each):
        return list(self._base.__iter__(each))

    def make(self, each, items):
        made = self._base.__new__(type(each))
        if isinstance(each, collections.deque):
            collections.deque.__init__(made, (), each.maxlen)
        return made

    def put_items(self, each, items):
        self._base.clear(each)
        self._extend(each, items)


class Fixed(Kind):
    """A tuple or a frozen set."""

    is_made_of_items = is_immutable = True

    def __init__(self, base: Any):
        self._base = base

    def items(self, each):
        return list(self._base.__iter__(each))

    def make(self, each, items):
        return self._base.__new__(type(each), items)


class Cell(Kind):
    """A closure cell, which may be empty."""

    def items(self, each):
        try:
            return [each.cell_contents]
        except ValueError:
            return []

    def make(self, each, items):
        return types.CellType()

    def put_items(self, each, items):
        del each.cell_contents
        if items:
            (each.cell_contents,) = items

    def labels(self, items):
        return [".cell_contents"]


class Function(Kind):
    """A function that no module holds, with its closure."""

    is_made_of_items = is_immutable = True

    def items(self, each):
        return [each.__defaults__, each.__kwdefaults__, each.__closure__]

    def make(self, each, items):
        defaults, of_keywords, closure = items
        made = types.FunctionType(
            each.__code__, each.__globals__, each.__name__, defaults, closure
        )
        made.__kwdefaults__ = of_keywords
        for name in ("__doc__", "__module__", "__qualname__", "__annotations__"):
            setattr(made, name, getattr(each, name))
        return made

    def labels(self, items):
        return [".__defaults__", ".__kwdefaults__", ".__closure__"]


class Method(Kind):
    """A bound method, of a Python class or of a built-in one."""

    is_made_of_items = is_immutable = True

    def take(self, each):
        return Content({}, [each.__self__, getattr(each, "__func__", each.__name__)])

    def make(self, each, items):
        owner, function = items
        if isinstance(function, str):
            return getattr(owner, function)
        return types.MethodType(function, owner)

    def labels(self, items):
        return [".__self__", ".__func__"]


class Reference(Kind):
    """A weak reference. Its referent is not an item: nothing else may hold it."""

    is_made_of_items = is_immutable = True

    def items(self, each):
        return [each.__callback__]

    def make(self, each, items):
        return self.to(each, self.referent(each), items)

    def referent(self, each):
        """The object that a reference refers to, or `None` if it is gone."""
        return each()

    def to(self, each, referent, items):
        """A reference like `each` to another object."""
        key = [each.key] if hasattr(each, "key") else []  # of a weak dictionary
        return type(each)(referent, *items, *key)


class MethodReference(Reference):
    """A weak reference to a bound method: to its object."""

    def items(self, each):
        inner = each.__callback__  # the class's own, around the user's
        names = inspect.getclosurevars(inner).nonlocals if inner else {}
        return [names.get("callback")]

    def referent(self, each):
        return getattr(each(), "__self__", None)

    def to(self, each, referent, items):
        if referent is None:
            return each
        method = types.MethodType(each().__func__, referent)
        return type(each)(method, *items)


class Tensor(Kind):
    """A backend's tensor or variable."""

    def make(self, each, items):
        """A copy that shares memory with no other tensor. Tensors of one model may
        share it, see `backends.active.tensor_copier`."""
        return backends.active.tensor_copier()(each)

    def take(self, each):
        own = attributes_of(each)
        return Content(own | backends.active.tensor_attributes(each), [])

    def put(self, each, content):
        """Adds the attributes that a copy lacks."""
        of_leaf = backends.active.tensor_attributes(each)
        own = content.attributes.keys() - attributes_of(each).keys()
        for name in {*own, *of_leaf} & content.attributes.keys():
            setattr(each, name, content.attributes[name])


class Compiled(Kind):
    """A Python function that the user compiled."""

    is_made_of_items = is_immutable = True

    def take(self, each):
        python_function = getattr(each, "python_function", None)
        return Content({}, [python_function or each.__wrapped__])

    def make(self, each, items):
        return backends.active.compiled_again(each, *items)

    def labels(self, items):
        return [".__wrapped__"]


class Proxy(Kind):
    """A proxy of a container that tracks its items."""

    is_made_of_items = True

    def take(self, each):
        flags = {n: getattr(each, n) for n in backends.active.FLAGS_OF_PROXIES}
        return Content(flags, [each.__wrapped__])

    def make(self, each, items):
        return type(each)(*items)

    def put(self, each, content):
        """Initializes the proxy again, now that the wrapped container is filled."""
        type(each).__init__(each, *content.items)
        for name, flag in content.attributes.items():
            setattr(each, name, flag)


class Array(Kind):
    """A NumPy array, which may hold objects or be a view of another's memory."""

    is_made_of_items = True

    def items(self, each):
        is_view = type(each.base) is np.ndarray and each.base.flags.c_contiguous
        objects = list(each.flat) if each.dtype.hasobject else []
        return [each.base if is_view else None, *objects]

    def make(self, each, items):
        base, *objects = items
        if base is not None:
            start, of_base = (
                a.__array_interface__["data"][0] for a in (each, each.base)
            )
            return np.ndarray(
                each.shape, each.dtype, base, start - of_base, each.strides
            )
        made = np.array(each, copy=True, order="K")
        for i, value in enumerate(objects):
            made.flat[i] = value
        return made


class Reduced(Kind):
    """An object that reduces itself, as for `pickle`, to a constructor and a state.

    Attributes that it leaves out are added, if they can be taken apart.
    """

    is_made_of_items = True

    def take(self, each):
        reduced = (*each.__reduce_ex__(4), None, None, None)
        function, arguments, state, listed, mapped = reduced[:5]
        pairs = None if mapped is None else [list(pair) for pair in mapped]
        listed = None if listed is None else list(listed)
        said = state if isinstance(state, dict) else {}
        left_out = {
            name: value
            for name, value in attributes_of(each).items()
            if name not in said and can_be_taken(value)
        }
        return Content(left_out, [function, arguments, state, listed, pairs])

    def make(self, each, items):
        function, arguments, *_ = items
        return function(*arguments)

    def put(self, each, content):
        _, _, state, listed, mapped = content.items
        if state is not None and hasattr(each, "__setstate__"):
            each.__setstate__(state)
        elif state is not None:
            for part in state if isinstance(state, tuple) else [state]:
                put_attributes(each, {**attributes_of(each), **(part or {})})
        for name, value in content.attributes.items():
            if name not in attributes_of(each):
                object.__setattr__(each, name, value)
        for value in listed or ():
            each.append(value)
        for key, value in mapped or ():
            each[key] = value

    def labels(self, items):
        return [f".__reduce_ex__(4)[{i}]" for i in range(5)]


KINDS: dict[type, Kind] = {
    collections.OrderedDict: Dictionary(collections.OrderedDict),
    collections.defaultdict: DefaultDictionary(collections.defaultdict),
    dict: Dictionary(dict),
    list: Sequence(list, list.extend),
    set: Sequence(set, set.update),
    collections.deque: Sequence(collections.deque, collections.deque.extend),
    tuple: Fixed(tuple),
    frozenset: Fixed(frozenset),
    types.CellType: Cell(),
    types.FunctionType: Function(),
    types.MethodType: Method(),
    types.BuiltinMethodType: Method(),
    types.MethodWrapperType: Method(),
    weakref.WeakMethod: MethodReference(),
    weakref.ref: Reference(),
    # Keras pickles an object as a file, which lacks some of its contents.
    backends.keras_internals.KerasSaveable: Plain(),
    **{each: Plain() for each in backends.active.PLAIN},
    **{each: Proxy() for each in backends.active.PROXIES},
}
TENSOR, ARRAY, PLAIN, REDUCED = Tensor(), Array(), Plain(), Reduced()
COMPILED_BY_USER = Compiled()


def taken(each: Any) -> tuple[Kind, Content] | None:
    """Kind and contents of an object, or `None` if models share it.

    Raises:
        Exception: any, from an object that can't be taken apart.
    """
    if isinstance(each, backends.active.UNIQUE):
        raise TypeError(f"a {type(each).__name__} has a state that can't be copied")
    if isinstance(each, IMMUTABLE) or is_of_a_module(each):
        return None
    kind = kind_of(each)
    if kind is REDUCED and is_found_again(each):
        return None
    return kind, kind.take(each)


def is_found_again(each: Any) -> bool:
    """Whether an object reduces itself to a function that finds it again by a name,
    such as a logger: a process has it once."""
    function, arguments, *rest = each.__reduce_ex__(4)
    is_of_names = all(isinstance(name, str) for name in arguments) and arguments
    is_whole = all(part is None for part in rest)
    if isinstance(function, type) or not (is_of_names and is_whole):
        return False
    try:
        return function(*arguments) is each
    except Exception:  # it could not be made again: the copy says so
        return False


def can_be_taken(each: Any) -> bool:
    """Whether an object can be taken apart, or is shared by models."""
    try:
        taken(each)
    except Exception:
        return False
    return True


def kind_of(each: Any) -> Kind:
    """Kind of an object that models do not share.

    Raises:
        Exception: any, from an object that can't be taken apart.
    """
    if isinstance(each, backends.active.TENSORS):
        return TENSOR
    if type(each) is np.ndarray:
        return ARRAY
    if isinstance(each, backends.active.COMPILED_FUNCTIONS):
        return COMPILED_BY_USER
    if isinstance(each, (*weakref.ProxyTypes, super)):
        raise TypeError(f"it is a {type(each).__name__}")
    for base in type(each).__mro__:
        if base in KINDS:
            return KINDS[base]
    reduced = each.__reduce_ex__(4)
    if isinstance(reduced, str):
        raise TypeError(f"no module holds it as {reduced!r}")
    function, arguments, *rest = reduced
    is_plain = function is NEW_OBJECT and arguments == (type(each),)
    if is_plain and not any(rest[1:]) and not hasattr(each, "__setstate__"):
        return PLAIN
    return REDUCED


def is_of_a_module(each: Any) -> bool:
    """Whether an object is a function, or another stateless object, that a module
    holds by name."""
    owner = getattr(each, "__self__", None)
    if isinstance(each, types.BuiltinMethodType | types.MethodWrapperType):
        return owner is None or isinstance(owner, types.ModuleType | type)
    name, module = (getattr(each, n, None) for n in ("__qualname__", "__module__"))
    if not (callable(each) and isinstance(name, str) and isinstance(module, str)):
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is each
