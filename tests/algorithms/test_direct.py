"""`direct` against the float64 reference."""

import shutil
from typing import ClassVar

import keras
import numpy as np
import pytest

from keras_diagwise import backends
from keras_diagwise.algorithms import Direct
from keras_diagwise.algorithms.direct.algorithm import compiled_pass
from keras_diagwise.algorithms.limits import can_serve
from keras_diagwise.tuner.float64_passes import exact_pass
from tests.algorithms.suite import (
    EDGES,
    AlgorithmSuite,
    check_against_reference,
    depthwise,
)
from tests.strategies import tensors, to_backend, to_numpy


class TestDirect(AlgorithmSuite):
    algorithms: ClassVar = [Direct(), Direct("rows")]


ONLY_TENSORFLOW = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="it compiles whole steps only"
)


@ONLY_TENSORFLOW
@pytest.mark.parametrize(
    "edge",
    [
        "empty batch, multiplied",
        "stride with dilation",
        "channels first, strided, multiplied",
        "groups of several channels",
        "bfloat16",
        "huge kernel, strided, multiplied",
    ],
)
def test_compiled_alone_equals_the_reference(edge):
    """A pass that is compiled on its own equals the reference."""
    for algorithm in (Direct(compiled=True), Direct("rows", compiled=True)):
        if algorithm.refusal(EDGES[edge]) is None:
            check_against_reference(algorithm, EDGES[edge])


@pytest.fixture
def inductor(monkeypatch):
    """What is compiled alone on torch is compiled here too; how many graphs were."""
    if keras.backend.backend() != "torch" or shutil.which("g++") is None:
        pytest.skip("about torch, whose compiler needs one of C++ on CPU")
    import torch
    from torch._dynamo.utils import counters

    monkeypatch.setattr(backends.active, "COMPILES_ALONE", True)
    compiled_pass.cache_clear()
    torch._dynamo.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    compiled_pass.cache_clear()
    torch._dynamo.reset()


def test_inductor_compiles_each_pass_once(inductor):
    """Inductor compiles each pass once.

    This holds although `keras.ops` counts its calls, and whether or not gradients are
    asked for.
    """
    import torch

    algorithm, problem = Direct(compiled=True), EDGES["stride with dilation"]
    check_against_reference(algorithm, problem)
    assert inductor() == 3
    inputs = torch.ones(problem.input_shape(), requires_grad=True)
    kernel = torch.ones(problem.kernel_shape)
    keras.ops.pad(kernel, 1)
    algorithm.forward(problem, inputs, kernel)
    algorithm.forward(problem, inputs.detach(), kernel.requires_grad_())
    assert inductor() == 3


@pytest.mark.usefixtures("inductor")
def test_uncompilable_pass_runs_as_it_is():
    """A pass that Inductor can't compile whole runs as it is.

    Here it is a loop over blocks of rows, whose slices begin where a tensor says.
    """
    algorithm = Direct("rows", compiled=True)
    for size in (9, 10):
        check_against_reference(algorithm, depthwise((size,), 1, (1,)))


@ONLY_TENSORFLOW
def test_graph_holds_one_compiled_call():
    """A graph holds the pass as one compiled call, also where the batch is unknown."""
    import tensorflow as tf

    problem = depthwise((6, 6), 4, (3, 3), batch=None)
    kernel = np.ones(problem.kernel_shape, "float32")

    @tf.function(input_signature=[tf.TensorSpec((None, 6, 6, 4))])
    def run(inputs):
        return Direct(compiled=True).forward(problem, inputs, kernel)

    graph = run.get_concrete_function().graph
    calls = [each for each in graph.get_operations() if "PartitionedCall" in each.type]
    assert [each.get_attr("_XlaMustCompile") for each in calls] == [True]
    for batch in (1, 3):
        assert run(np.ones((batch, 6, 6, 4), "float32")).shape == (batch, 6, 6, 4)


def test_what_is_compiled_is_kept():
    problem = depthwise((6, 6), 4, (3, 3))
    passes = [compiled_pass(Direct(), "forward", problem) for _ in range(2)]
    assert passes[0] is passes[1]


@pytest.mark.parametrize("size", [13, 31])
def test_huge_kernel_compiles_to_few_rows(size):
    """A huge kernel is a program of a few rows.

    So neither the tuner nor the planner expects it to compile for minutes.
    """
    problem = depthwise((40, 40), 8, (size, size))
    assert Direct().work(problem).operations <= 2 * size
    assert can_serve("direct", problem)
    assert Direct().work(depthwise((40, 40), 8, (5, 5))).operations == 25


def test_float64_is_summed_in_float64():
    """Issue 20: on torch a number that met a float64 tensor made float32 of it, and the
    kernel gradient was off by 1.4e-6."""
    problem = depthwise((6, 5), 4, (5, 5), batch=3, dtype="float64")
    inputs, _, gradient = tensors(problem)
    operands = to_backend([inputs, gradient], "float64")
    found = to_numpy(Direct("rows").kernel_gradient(problem, *operands))
    exact = exact_pass(problem, "kernel_gradient", inputs, gradient)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-12)


def test_gpu_unrolls_below_fifty_taps(monkeypatch):
    """On a GPU, a kernel of fewer than fifty taps is not looped over.

    Nor are there blocks of rows, which are for a CPU's caches.
    """
    problem = depthwise((40, 40), 8, (7, 7))

    def lowerings():
        return {each.lowering for each in Direct.candidates(problem, "kernel_gradient")}

    assert lowerings() == {"taps", "rows"}
    assert Direct().work(problem).operations < 49
    monkeypatch.setattr(backends, "computes_on_gpu", lambda: True)
    assert lowerings() == {"taps"}
    assert Direct().work(problem).operations == 49
    assert Direct().work(depthwise((40, 40), 8, (9, 9))).operations < 81
    check_against_reference(Direct(), problem)
