"""`triton` against the float64 reference, in the interpreter."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from typing import ClassVar

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st

from keras_diagwise import Plan, backends, depthwise_conv
from keras_diagwise.algorithms import Triton, parse
from keras_diagwise.algorithms.triton.launch import program_of
from keras_diagwise.algorithms.triton.program import compile_apart
from keras_diagwise.backends.triton import WARPS
from keras_diagwise.planning.planned_convolution import (
    PlannedConvolution,
    operator_in_trace,
)
from keras_diagwise.problem import PASSES
from tests import reference
from tests.algorithms.suite import (
    EDGES,
    AlgorithmSuite,
    check_against_reference,
    depthwise,
)
from tests.engines.network import assert_same_training
from tests.engines.processes import ended, free_ports, started
from tests.interpreter import interpreted, needs_interpreter
from tests.strategies import operands_of, problems, tensors, to_backend, to_numpy
from tuning import gpu_programs

BACKEND = keras.backend.backend()

__all__ = ["interpreted"]  # a fixture


MAX_TAPS = 60
"""In the interpreter a tap takes some milliseconds."""
SMALL = {name: each for name, each in EDGES.items() if each.taps <= MAX_TAPS}


@needs_interpreter
@pytest.mark.usefixtures("interpreted")
class TestTriton(AlgorithmSuite):
    algorithms: ClassVar = [Triton(), Triton(8, 8)]

    @pytest.mark.parametrize("problem", SMALL.values(), ids=SMALL)
    def test_equals_the_reference_at_the_edges(self, problem):
        for algorithm in self.pick(problem):
            check_against_reference(algorithm, problem)

    @hypothesis.given(
        problem=problems(ranks=(1, 2), depthwise=True), seed=st.integers(0, 3)
    )
    def test_equals_the_reference(self, problem, seed):
        algorithm = self.algorithms[seed % 2]
        hypothesis.assume(algorithm.refusal(problem) is None)
        check_against_reference(algorithm, problem, seed)

    @pytest.mark.parametrize("pass_name", PASSES)
    def test_empty_batch_gives_zeros(self, pass_name):
        """An empty batch gives zeros, although the problem leaves the batch unknown."""
        problem = depthwise((5, 5), 4, (3, 3), batch=None)
        empty = depthwise((5, 5), 4, (3, 3), batch=0)
        operands = operands_of(pass_name, *to_backend(tensors(empty), "float32"))
        result = to_numpy(getattr(Triton(), pass_name)(problem, *operands))
        expected = getattr(reference.passes(empty, *tensors(empty)), pass_name)
        np.testing.assert_array_equal(result, expected)

    def test_non_contiguous_input_is_supported(self):
        """A tensor that is not contiguous gives the result of a contiguous one."""
        problem = EDGES["unequal strides"]
        inputs, kernel, _ = to_backend(tensors(problem), "float32")
        turned = keras.ops.transpose(keras.ops.transpose(inputs, (3, 1, 2, 0)))
        turned = keras.ops.transpose(turned, (3, 1, 2, 0))
        turned = keras.ops.transpose(turned)
        result = to_numpy(Triton().forward(problem, turned, kernel))
        np.testing.assert_array_equal(
            result, to_numpy(Triton().forward(problem, inputs, kernel))
        )

    @pytest.mark.skipif(BACKEND != "torch", reason="about torch's autograd")
    def test_torch_second_derivatives_are_right(self):
        """Derivatives on torch are right up to the second order."""
        import torch

        draw = torch.Generator().manual_seed(0)
        shapes = (2, 5, 4, 3), (3, 2, 3, 2)
        operands = [
            torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True)
            for shape in shapes
        ]

        def run(inputs, kernel):
            arguments = {"strides": 2, "padding": "same", "plan": "triton"}
            return depthwise_conv(inputs, kernel, **arguments)

        assert torch.autograd.gradcheck(run, operands, fast_mode=True)
        assert torch.autograd.gradgradcheck(run, operands, fast_mode=True)

    @pytest.mark.skipif(BACKEND != "torch", reason="about torch.compile")
    def test_torch_compiles_around_it(self):
        """In one graph, that holds an operator for each pass, and nothing within."""
        import torch
        from torch._dynamo.backends.common import aot_autograd

        draw = np.random.default_rng(0)
        operands = [
            torch.tensor(draw.normal(size=shape), requires_grad=True)
            for shape in ((2, 5, 4, 4), (3, 3, 4, 1))
        ]
        graphs = []

        def keep(module, example_inputs):
            graphs.append([str(node.target) for node in module.graph.nodes])
            return module.forward

        def run(inputs, kernel):
            return torch.tanh(depthwise_conv(inputs, kernel, plan="triton")).sum()

        torch._dynamo.reset()
        backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
        compiled = torch.compile(run, backend=backend, fullgraph=True)
        ours = torch.autograd.grad(compiled(*operands), operands)
        for one, other in zip(
            ours, torch.autograd.grad(run(*operands), operands), strict=True
        ):
            torch.testing.assert_close(one, other)
        counts = [sum("keras_diagwise" in each for each in graph) for graph in graphs]
        assert counts == [1, 2]

    @pytest.mark.skipif(BACKEND != "torch", reason="about torch's operators")
    @pytest.mark.parametrize("pass_name", PASSES)
    def test_the_operator_passes_opcheck(self, pass_name):
        import torch

        problem = depthwise((5, 4), 4, (3, 3), batch=2)
        left, right = operands_of(pass_name, *to_backend(tensors(problem), "float32"))
        planned = PlannedConvolution(problem, Plan("triton", "triton", "triton"))
        operands = left.requires_grad_(), right.requires_grad_()
        torch.library.opcheck(
            operator_in_trace(), (*operands, pass_name, planned.name_in_trace)
        )

    @pytest.mark.skipif(BACKEND != "jax", reason="about JAX's transformations")
    @pytest.mark.parametrize("name", ["jvp", "hessian", "vmap of inputs", "checkpoint"])
    def test_derivatives_on_jax_are_stocks(self, name):
        import jax

        draw = np.random.default_rng(0)
        inputs, kernel = draw.normal(size=(2, 4, 4, 2)), draw.normal(size=(2, 2, 2, 1))
        many = draw.normal(size=(3, *inputs.shape))

        def loss(run):
            return lambda x, k: (jax.numpy.tanh(run(x, k)) ** 2).sum()

        transform = {
            "jvp": lambda f: jax.jvp(f, (inputs, kernel), (inputs + 1, kernel - 1)),
            "hessian": lambda f: jax.jit(jax.hessian(loss(f), 1))(inputs, kernel),
            "vmap of inputs": lambda f: jax.vmap(f, (0, None))(many, kernel),
            "checkpoint": lambda f: jax.grad(jax.checkpoint(loss(f)))(inputs, kernel),
        }[name]
        ours = transform(lambda x, k: depthwise_conv(x, k, plan="triton"))
        stock = transform(keras.ops.depthwise_conv)
        for one, other in zip(
            jax.tree.leaves(ours), jax.tree.leaves(stock), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.skipif(BACKEND != "torch", reason="DistributedDataParallel is torch's")
@needs_interpreter
def test_processes_train_as_stock_by_kernels():
    (port,) = free_ports(1)
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    ranks = {"WORLD_SIZE": "2", "PLAN": "triton", "STEPS": "3", **place}
    found = ended(
        started("tests.engines.torch_worker", RANK=str(rank), **ranks)
        for rank in range(2)
    )
    for each in found:
        assert_same_training(each["stock"], each["converted"], steps=3)
        assert any("triton" in plan for plan in each["plans"])


def test_its_text_names_it():
    for algorithm in (Triton(), Triton(8, 8)):
        assert parse(str(algorithm)) == algorithm
    assert parse("triton") == Triton()


@pytest.mark.parametrize(
    "text", ["triton:3", "triton:4:12", "triton:4:8:1", "triton:x"]
)
def test_bad_parameters_name_valid_ones(text):
    """Parameters that can't be parsed raise an error that shows valid ones."""
    with pytest.raises(ValueError, match=f"'triton:8:16'.*{text}"):
        parse(text)


@pytest.mark.parametrize(
    ("edge", "reason"),
    [
        ("three dimensions", "rank 1 and 2"),
        ("groups of several channels", "depthwise"),
        ("empty batch", "nothing to compute"),
        ("huge kernel, one dimension", "131 taps"),
    ],
)
def test_it_says_what_it_can_not_compute(edge, reason):
    assert reason in Triton().refusal(EDGES[edge])


def test_stride_far_beyond_kernel_is_refused():
    problem = depthwise((40, 40), 4, (3, 3), strides=(9, 9))
    assert "stride" in Triton().refusal(problem)


@pytest.mark.skipif(needs_interpreter.args[0] is False, reason="a kernel can run here")
def test_without_a_gpu_the_plan_runs_native():
    """Without a GPU the plan runs native, and no candidate is offered.

    Nothing of Triton is imported either.
    """
    problem = EDGES["one image"]
    assert backends.active.triton_refusal()
    assert not list(Triton.candidates(problem, "forward"))
    convolution = PlannedConvolution(problem, Plan("triton", "triton", "triton"))
    assert convolution.effective_plan.is_native
    assert "keras_diagwise.algorithms.triton.kernels" not in sys.modules


@pytest.mark.skipif(BACKEND != "jax", reason="about JAX's transformations")
@needs_interpreter
def test_what_takes_a_call_apart_runs_native(interpreted):
    """`vmap` over kernels, which no kernel of ours has an axis for."""
    import jax

    problem = EDGES["one image"]
    convolution = PlannedConvolution(problem, Plan("triton", "triton", "triton"))
    inputs, kernel, _ = to_backend(tensors(problem), "float32")
    kernels = keras.ops.stack([kernel, 2 * kernel])

    def run(kernel):
        return backends.active.differentiable(convolution, inputs, kernel)

    mapped = to_numpy(jax.jit(jax.vmap(run))(kernels))
    one = to_numpy(run(kernel))
    np.testing.assert_allclose(mapped[0], one, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mapped[1], 2 * one, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(BACKEND != "jax", reason="about JAX")
@needs_interpreter
def test_it_runs_without_jit(interpreted):
    """Under `jax.disable_jit()` the primitive once called itself without end."""
    import jax

    problem = EDGES["one image"]
    convolution = PlannedConvolution(problem, Plan("triton", "triton", "triton"))
    operands = to_backend(tensors(problem), "float32")[:2]
    expected = to_numpy(backends.active.differentiable(convolution, *operands))
    with jax.disable_jit():
        found = to_numpy(backends.active.differentiable(convolution, *operands))
    np.testing.assert_array_equal(found, expected)


needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None
    or os.environ.get("TRITON_INTERPRET") == "1",
    reason="Triton is not installed, or interprets",
)


@needs_compiler
@pytest.mark.parametrize("capability", gpu_programs.CAPABILITIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_programs_use_registers_and_vectors(dtype, capability):
    """Programs keep their sums in registers and load whole vectors.

    Checked for a kernel that is unrolled and for one that loops over its rows.
    """
    square = depthwise((56, 56), 144, (3, 3), strides=(2, 2), batch=64, dtype=dtype)
    line = depthwise((512,), 256, (31,), batch=2, dtype=dtype)
    for problem in (square, line):
        launches = [(name, Triton().launch(problem, name, 64)) for name in PASSES]
        for pass_name, how in launches:
            program = program_of(how, dtype, capability)
            reading = gpu_programs.compiled_and_read(program)
            assert gpu_programs.faults(program, reading) == []
            if problem is square:
                assert reading.widths == (16,), pass_name


@needs_compiler
def test_a_program_that_spills_is_seen():
    problem = depthwise((56, 56), 144, (5, 5), batch=64)
    how = Triton().launch(problem, "kernel_gradient", 64)
    greedy = [("UNROLL", 8) if n == "UNROLL" else (n, v) for n, v in how.constants]
    how = dataclasses.replace(how, constants=tuple(greedy))
    program = program_of(how, "float32", 90)
    (fault,) = gpu_programs.faults(program, gpu_programs.compiled_and_read(program))
    assert "what fits no register" in fault


class FakeDriver:
    """An H100's driver that launches nothing, and keeps what it was to launch."""

    def __init__(self):
        self.launched = []
        self.utils = self

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_device_properties(self, device):
        return {"max_shared_mem": 2**18}

    def load_binary(self, name, code, shared, device):
        return "module", "function", 64, 0, 1024

    def launcher_cls(self, source, metadata):
        def run(*arguments):
            grid, operands = arguments[:3], arguments[9:]
            self.launched.append((metadata.name, grid, operands))

        return run


@needs_compiler
@pytest.mark.skipif(BACKEND != "torch", reason="about torch's launches")
@pytest.mark.parametrize("pass_name", PASSES)
def test_a_held_kernel_runs_as_tritons_own(monkeypatch, pass_name):
    """The program, grid and arguments are those of a launch by Triton's look-up."""
    import torch
    from triton.runtime import driver

    from keras_diagwise.algorithms.triton import kernels

    fake = FakeDriver()
    monkeypatch.setattr(driver, "_active", fake)
    backends.active.held_kernel.cache_clear()
    try:
        problem = depthwise((9, 8), 16, (3, 3), strides=(2, 1), batch=2)
        left, right = operands_of(pass_name, *to_backend(tensors(problem), "float32"))
        how = Triton().launch(problem, pass_name, 2)
        result = backends.active.launched(how, left, right)
        jitted = getattr(kernels, how.kernel)
        jitted[how.programs,](
            left,
            right,
            *how.sizes,
            result,
            **dict(how.constants),
            num_warps=WARPS,
            num_stages=1,
        )
        held, own = fake.launched
        assert held[:2] == own[:2]
        assert len(held[2]) == len(own[2]) == len(jitted.arg_names)
        for one, other in zip(held[2], own[2], strict=True):
            assert one is other or one == other
        assert result.shape == how.shape
        apart = torch.empty(left.numel() + 1)[1:].reshape(left.shape)
        if pass_name == "forward":  # what is not aligned has a program of its own
            backends.active.launched(how, apart, right)
            assert fake.launched[-1][2][0].data_ptr() % 16
    finally:
        backends.active.held_kernel.cache_clear()


@pytest.fixture
def found_in_cache(monkeypatch, tmp_path):
    """Whether Triton's cache, empty at first, had what launches ask for."""
    from triton import knobs
    from triton.runtime import driver

    found = []

    def listener(*, cache_hit, **_):
        found.append(cache_hit)

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(knobs.compilation, "listener", listener)
    monkeypatch.setattr(driver, "_active", FakeDriver())
    return found


@needs_compiler
@pytest.mark.skipif(BACKEND != "torch", reason="about a launch by torch")
@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_launch_finds_what_was_compiled(found_in_cache, dtype, pass_name):
    """Of other sizes, too."""
    import torch

    from keras_diagwise.algorithms.triton import kernels

    problem = depthwise((14, 14), 96, (3, 3), batch=4, dtype=dtype)
    compile_apart(program_of(Triton().launch(problem, pass_name, 4), dtype, 90))
    larger = dataclasses.replace(problem, batch=64, spatial_shape=(28, 30))
    how = Triton().launch(larger, pass_name, 64)
    operands = [torch.empty(64, dtype=getattr(torch, dtype)) for _ in range(2)]
    result = torch.empty(64, dtype=getattr(torch, how.dtype))
    options = {**dict(how.constants), "num_warps": WARPS, "num_stages": 1}
    kernel = getattr(kernels, how.kernel)
    kernel.warmup(*operands, *how.sizes, result, grid=(how.programs,), **options)
    assert found_in_cache == [True]


@needs_compiler
def test_a_failed_compilation_apart_is_told():
    how = Triton().launch(depthwise((14, 14), 96, (3, 3)), "forward", 2)
    with pytest.raises(subprocess.CalledProcessError):
        compile_apart(program_of(how, "float32", 90)._replace(warps=3))


@pytest.fixture
def aims_at_cuda(monkeypatch):
    """Lowering is for an H100, which need not be there."""
    if BACKEND != "jax" or importlib.util.find_spec("jax_triton") is None:
        pytest.skip("about JAX's programs for GPUs")
    monkeypatch.setattr(backends.active, "triton_refusal", lambda: None)
    monkeypatch.setattr(backends.active, "compute_capability", lambda: (9, 0))


def lowered_for_cuda(devices):
    """JAX's program of a convolution's three passes, its batch on some devices."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    problem = depthwise((8, 8), 16, (3, 3), batch=4)
    convolution = PlannedConvolution(problem, Plan("triton", "triton", "triton"))
    mesh = jax.sharding.Mesh(jax.devices()[:devices], ("batch",))
    sharded = NamedSharding(mesh, PartitionSpec("batch"))
    replicated = NamedSharding(mesh, PartitionSpec())

    def run(inputs, kernel, gradient):
        value, pull_back = jax.vjp(
            lambda x, k: backends.active.differentiable(convolution, x, k),
            inputs,
            kernel,
        )
        return value, *pull_back(gradient)

    operands = [
        jax.ShapeDtypeStruct(shape, "float32", sharding=sharding)
        for shape, sharding in (
            (problem.input_shape(), sharded),
            (problem.kernel_shape, replicated),
            (problem.output_shape(), sharded),
        )
    ]
    traced = jax.jit(run).trace(*operands)
    return traced.lower(lowering_platforms=("cuda",)).as_text()


@needs_compiler
def test_on_one_gpu_jax_calls_three_kernels(aims_at_cuda):
    """On one GPU, JAX calls a kernel for each pass."""
    text = lowered_for_cuda(devices=1)
    assert text.count("custom_call @triton_kernel_call") == 3
    assert "stablehlo.convolution" not in text


@needs_compiler
def test_on_two_gpus_jax_runs_native(aims_at_cuda):
    """A kernel that is not told how to divide its work would gather the batch."""
    text = lowered_for_cuda(devices=2)
    assert "triton_kernel_call" not in text
    assert text.count("stablehlo.convolution") == 3
