"""TensorFlow's tensors and other objects with a state, copied with a model."""

from __future__ import annotations

import copy

import tensorflow as tf
from tensorflow.python.trackable import data_structures

Table = tf.lookup.experimental.MutableHashTable
TENSORS = (tf.Variable, Table)
STATE = (tf.Variable,)
SHARED = (
    *(tf.Tensor, tf.TypeSpec, tf.TensorShape, tf.DType, tf.Graph),
    *(tf.distribute.Strategy, tf.distribute.StrategyExtended),
)
PLAIN = ()
PROXIES = (data_structures._DictWrapper, data_structures._TupleWrapper)
FLAGS_OF_PROXIES = ("_self_trainable",)


def tensor_copier():
    return copy_of


def copy_of(tensor):
    is_table = isinstance(tensor, Table)
    return copy_of_table(tensor) if is_table else copy_of_variable(tensor)


def copy_of_table(table):
    made = Table(table.key_dtype, table.value_dtype, table._default_value)
    made.insert(*table.export())
    return made


def copy_of_variable(variable):
    """TensorFlow's own copy, except for an open shape, which it loses (2.21)."""
    if variable.shape.is_fully_defined() or hasattr(variable, "distribute_strategy"):
        return copy.deepcopy(variable)
    names = ("trainable", "dtype", "constraint", "synchronization", "aggregation")
    settings = {name: getattr(variable, name) for name in (*names, "shape")}
    name = variable.name.partition(":")[0]
    return tf.Variable(variable.read_value(), name=name, **settings)


def tensor_attributes(tensor):
    return {}


def restored_tensor(tensor, copy, attributes):
    if isinstance(tensor, Table):
        tensor.remove(tensor.export()[0])
        tensor.insert(*copy.export())
    else:
        tensor.assign(copy)
    return tensor


def compiled_again(function, python_function):
    """By a method that `tf.function` has only for subclasses. Seen in 2.21."""
    return function._clone(python_function)


UNIQUE = (
    *(tf.data.Iterator, tf.queue.QueueBase),
    tf.lookup.experimental.DenseHashTable,
)


def random_state():
    return None


def set_random_state(state):
    """Does nothing: TensorFlow's global generator can be seeded, but not read."""


def keys_of_tensor(tensor):
    """Keras's optimizers keep a private name in place of a variable (seen in 3.15)."""
    return (tensor._unique_id,) if isinstance(tensor, tf.Variable) else ()
