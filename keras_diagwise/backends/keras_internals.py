"""All private parts of Keras that the package uses, and differences between its
versions, with the reasons."""

from __future__ import annotations

import sys

import keras
from keras.src.backend.common import global_state
from keras.src.saving.keras_saveable import KerasSaveable

from keras_diagwise.version import release

GLOBAL_SEED_GENERATOR = "global_seed_generator"

__all__ = ["KerasSaveable"]
"""The class that makes `pickle` save a model as a file. Seen in 3.15."""


def in_symbolic_scope() -> bool:
    """Whether Keras is computing output specs with made-up shapes.

    `keras.SymbolicScope` can be entered but not queried publicly. Seen in 3.15.
    """
    return global_state.get_global_attribute("symbolic_scope") is not None


EXPORTERS = ("keras.src.export", "tensorflow.python.saved_model.save")


def is_exporting() -> bool:
    """Whether Keras, or TensorFlow's `saved_model.save`, is tracing a model to export
    it, known only from the call stack. Seen in Keras 3.15 and TensorFlow 2.21. It takes
    about 10 µs, so it is called only in traces.
    """
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(EXPORTERS):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def global_seed():
    """Keras's generator of seeds for operations that are given none, and a copy of its
    state; `None` for both if it is not yet in use. Seen in 3.15.
    """
    generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    state = None if generator is None else keras.ops.convert_to_numpy(generator.state)
    return generator, None if state is None else state.copy()


def set_global_seed(generator, state) -> None:
    """Restores what `global_seed` returned."""
    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, generator)
    if generator is not None:
        generator.state.assign(state)


def default_torch_device() -> str:
    """The device of Keras's tensors on torch outside of every `keras.device`. Seen in
    3.15.
    """
    from keras.src.backend.torch import core

    return core.DEFAULT_DEVICE


def current_torch_device() -> str:
    """The device to which Keras moves operands on torch. Seen in 3.15."""
    from keras.src.backend.torch import core

    return core.get_device()


VERSION = release(keras.__version__)[:2]


def train_on_batch(model, *batch):
    """A training step, with the loss of this batch alone: `Model.train_on_batch`
    returns the mean since metrics were reset, and resets them itself from 3.15 on (seen
    in 3.10, 3.12, 3.14 and 3.15).
    """
    if VERSION < (3, 15):
        model.reset_metrics()
    return model.train_on_batch(*batch)


def depthwise_refusal(problem, has_gpu: bool) -> str | None:
    """Why Keras can't compute a depthwise convolution by TensorFlow, or `None`: up to
    3.14 it passes on to TensorFlow what 3.15 transposes or decomposes.
    """
    if VERSION >= (3, 15):
        return None
    if problem.data_format != "channels_last" and not has_gpu:
        return "before Keras 3.15, TensorFlow takes channels last only on CPU"
    if max(problem.strides) > 1 and max(problem.dilation_rate) > 1:
        return "before Keras 3.15, TensorFlow takes no dilation with strides"
    return None


def channels_built_for(layer) -> int | None:
    """The input channels for which a convolution is being built, once `build` has set
    its `input_spec`, which it does first; `None` at any other time.

    In 3.15 `build` then calls `compute_output_shape`; in 3.10 to 3.14 that of depthwise
    and separable layers does not, and next adds a weight. `build` itself can't be
    overridden: Keras binds it when a layer is made (seen in 3.10 to 3.15), and
    `convert` gives the layer another class later.
    """
    if layer.built or not isinstance(layer.input_spec, keras.InputSpec):
        return None
    return next(iter(layer.input_spec.axes.values()), None)


def flatten_layers(layer) -> list:
    """`layer` and every layer below it, each once.

    `Model.layers` is public but stops at layers that are not models. Seen in
    3.15.
    """
    return layer._flatten_layers(include_self=True, recursive=True)


def layers_with_paths(model) -> list[tuple[str, object]]:
    """Every layer below a model, each once, in the order of definition, with its path:
    the names of the enclosing layers and its own, joined by slashes.

    `Layer.path` is public, but `None` before a layer is built, and does not begin at
    the model (seen in 3.15).
    """
    found: dict[int, tuple[str, object]] = {}

    def visit(layer, prefix):
        for each in layer._layers:
            if id(each) not in found:
                found[id(each)] = prefix + each.name, each
                visit(each, f"{prefix}{each.name}/")

    visit(model, "")
    return list(found.values())


def call_shapes(model) -> dict[int, list[tuple]]:
    """The shapes of the first input of every layer below a model, by the layer's id:
    one for each place where it is called in the model's graphs of layers, or, if it is
    in none, in those of other models.

    `layer.input` is public but raises if there are several. The layer inside a
    `TimeDistributed` is called on a step of its input. Seen in 3.15.
    """
    layers = flatten_layers(model)
    nodes = graph_nodes([model, *layers])
    shapes = {
        id(layer): shapes_at([n for n in layer._inbound_nodes if id(n) in nodes])
        for layer in layers
    }
    for layer in layers:
        if isinstance(layer, keras.layers.TimeDistributed):
            steps = [(shape[0], *shape[2:]) for shape in shapes[id(layer)]]
            shapes[id(layer.layer)] = [*shapes[id(layer.layer)], *steps]
    return {
        id(layer): shapes[id(layer)] or shapes_at(layer._inbound_nodes)
        for layer in layers
    }


def graph_nodes(models) -> set[int]:
    """Ids of the calls of layers in the graphs of those that are graphs of layers. Two
    models can share a layer, not a call of it. Seen in 3.15."""
    graphs = [getattr(each, "_functional", None) or each for each in models]
    return {
        id(node)
        for graph in graphs
        for nodes in getattr(graph, "_nodes_by_depth", {}).values()
        for node in nodes
    }


def shapes_at(nodes) -> list[tuple]:
    tensors = (node.arguments.keras_tensors for node in nodes)
    return list(dict.fromkeys(tuple(found[0].shape) for found in tensors if found))
