"""Everything private in Keras that the package reaches, and why."""

from __future__ import annotations

from keras.src.backend.common import global_state


def in_symbolic_scope() -> bool:
    """Whether Keras is computing output specs with made-up shapes.

    `keras.SymbolicScope` is public to enter but not to ask. Seen in 3.15.
    """
    return global_state.get_global_attribute("symbolic_scope") is not None


def flatten_layers(layer) -> list:
    """`layer` and every layer below it, each once.

    `Model.layers` is public but stops at layers that are not models. Seen in
    3.15.
    """
    return layer._flatten_layers(include_self=True, recursive=True)


def remat_mode(layer) -> str | None:
    """The mode of the `keras.RematScope` that a layer was made in.

    Public to enter but not to ask, and not saved. Seen in 3.15.
    """
    return getattr(getattr(layer, "_remat_mode", None), "mode", None)


def exempt_from_weight_decay(optimizer) -> tuple[int, str | None]:
    """How many variables, and which names, an optimizer was told to spare.

    `exclude_from_weight_decay` is public, but what it keeps is not, and not
    saved. Seen in 3.15.
    """
    variables = getattr(optimizer, "_exclude_from_weight_decay", None) or ()
    names = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    return len(variables), getattr(names, "pattern", None)


def call_shapes(layer) -> list[tuple]:
    """The shapes of the first input of a layer, one for each place in a graph of
    layers where it is called.

    `layer.input` is public but raises if there are several. Seen in 3.15.
    """
    tensors = (node.arguments.keras_tensors for node in layer._inbound_nodes)
    return list(dict.fromkeys(tuple(found[0].shape) for found in tensors if found))
