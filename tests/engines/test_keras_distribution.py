"""JAX under `keras.distribution`, on four virtual devices: the numbers are stock's, a
problem is a device's, and the compiled step sends nothing that stock's does not."""

import contextlib
import re

import keras
import numpy as np
import pytest

from tests.engines.network import (
    IMAGES,
    assert_same_training,
    batches,
    compiled,
    network,
)
from tests.fake_runner import traced_convolutions

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="keras.distribution computes on JAX only"
)

KINDS = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
BYTES = {"f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "pred": 1}


def data_parallel():
    return keras.distribution.DataParallel(devices=devices())


def model_parallel():
    """Two groups of two devices: each group has half of the images, each device of a
    group half of the channels of every kernel."""
    mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"), devices())
    layout = keras.distribution.LayoutMap(mesh)
    layout["(first|second)/kernel"] = (None, None, "model", None)
    layout["separable/depthwise_kernel"] = (None, None, "model", None)
    layout["(conv2d.*|grouped)/kernel|pointwise_kernel"] = (None, None, None, "model")
    return keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")


ENGINES = {"data parallel": (data_parallel, 4), "model parallel": (model_parallel, 2)}
engines = pytest.mark.parametrize("engine", ENGINES)


def devices():
    return [f"cpu:{n}" for n in range(4)]


@contextlib.contextmanager
def distributed(engine):
    make, _ = ENGINES[engine]
    keras.distribution.set_distribution(make())
    try:
        yield
    finally:
        keras.distribution.set_distribution(None)


def trained(converted):
    model = compiled(network(converted))
    losses = [model.train_on_batch(*each) for each in batches()]
    return losses, [np.asarray(v.value) for v in model.variables]


@engines
@pytest.mark.usefixtures("float64")
def test_twenty_steps_match_stock(engine, monkeypatch):
    """Twenty steps match stock's, by plans for the problems that one device sees."""
    seen = traced_convolutions(monkeypatch)
    with distributed(engine):
        stocks = trained(converted=False)
        assert not seen
        assert_same_training(stocks, trained(converted=True))
    assert {each.problem.batch for each in seen} == {IMAGES // ENGINES[engine][1]}
    assert "direct" in {str(each.plan) for each in seen}


@engines
def test_compiled_step_sends_no_more(engine):
    """The compiled step sends no more than stock's, for each kind of collective."""
    with distributed(engine):
        stocks, ours = (collectives_of_step(network(each)) for each in (False, True))
    assert stocks, "a step that sends nothing proves nothing"
    assert set(ours) <= set(stocks)
    for kind, size in ours.items():
        assert size <= stocks[kind], kind


def collectives_of_step(model):
    """Bytes by kind of collective in a training step."""
    compiled(model).optimizer.build(model.trainable_variables)
    return collectives_in(step_of(model).as_text())


def step_of(model):
    """A training step, compiled as Keras's trainer compiles it: state stays where it
    is, the batch is split along the mesh's batch axis."""
    import jax

    optimizer = model.optimizer

    def loss(trainable, others, images, classes):
        outputs, others = model.stateless_call(trainable, others, images, training=True)
        return model.compute_loss(y=classes, y_pred=outputs), others

    def step(trainable, others, state, images, classes):
        (value, others), gradients = jax.value_and_grad(loss, has_aux=True)(
            trainable, others, images, classes
        )
        trainable, state = optimizer.stateless_apply(state, gradients, trainable)
        return value, trainable, others, state

    variables = (
        model.trainable_variables,
        model.non_trainable_variables,
        optimizer.variables,
    )
    values = [[v.value for v in each] for each in variables]
    where = [[v.sharding for v in each] for each in values]
    images, classes = (batch_on_devices(each) for each in batches(1)[0])
    compiled_step = jax.jit(step, out_shardings=(None, *where))
    return compiled_step.lower(*values, images, classes).compile()


def batch_on_devices(values):
    import jax

    distribution = keras.distribution.distribution()
    mesh = distribution.device_mesh
    devices = np.array(jax.devices()[:4]).reshape(mesh.shape)
    mesh = jax.sharding.Mesh(devices, mesh.axis_names)
    axes = jax.sharding.PartitionSpec("batch", *[None] * (values.ndim - 1))
    values = values.astype("float32") if values.dtype == "float64" else values
    return jax.device_put(values, jax.sharding.NamedSharding(mesh, axes))


def collectives_in(text):
    """Bytes by kind of collective in a compiled program."""
    found = {}
    for shapes, kind in re.findall(rf"= (.*?) ({KINDS})(?:-start)?\(", text):
        sizes = re.findall(rf"({'|'.join(BYTES)})\[([\d,]*)\]", shapes)
        found[kind] = found.get(kind, 0) + sum(
            BYTES[dtype] * int(np.prod([int(n) for n in axes.split(",") if n]))
            for dtype, axes in sizes
        )
    return found
