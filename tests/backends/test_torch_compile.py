"""`torch.compile`: plans in its graphs, breaks of them, shapes that vary, exports."""

import functools
import importlib
import subprocess
import sys

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from keras import ops

import keras_diagwise as kd
from keras_diagwise import Plan, backends
from keras_diagwise.algorithms import parse
from keras_diagwise.ops import dispatcher
from keras_diagwise.planning.call import depthwise_problem
from keras_diagwise.planning.planned_convolution import (
    PlannedConvolution,
    operator_in_trace,
)
from keras_diagwise.problem import PASSES
from keras_diagwise.tuner import candidates, comparer
from keras_diagwise.tuner.runner import PassTask, pass_of
from tests.strategies import to_numpy
from tests.test_ops import draw

torch = pytest.importorskip("torch")
if keras.backend.backend() != "torch":
    pytest.skip("about torch", allow_module_level=True)

CompileCounter = importlib.import_module("torch._dynamo.testing").CompileCounter
MIXED = Plan("native", "direct", "diagonal:4:split")
PLANS = ["direct", "diagonal:2", "direct:compiled", MIXED]
plans = pytest.mark.parametrize("plan", PLANS, ids=str)
compilers = pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()


def gradients(function, inputs, kernel):
    """A loss and its gradients by both operands, as arrays."""
    operands = [each.detach().clone().requires_grad_() for each in (inputs, kernel)]
    loss = (torch.tanh(function(*operands)) ** 2).sum()
    found = loss, *torch.autograd.grad(loss, operands)
    return [each.detach().numpy() for each in found]


def assert_as_stock(function, stock, *operands):
    for one, other in zip(
        gradients(function, *operands), gradients(stock, *operands), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-11)


def convolved(plan, **options):
    return lambda x, k: kd.depthwise_conv(x, k, padding="same", plan=plan, **options)


def stock(inputs, kernel):
    return ops.depthwise_conv(inputs, kernel, padding="same")


def graph_of(function, *operands):
    """The targets of the calls in the graph that Dynamo makes of a function."""
    graphs = []

    def keep(module, example_inputs):
        graphs.append(module)
        return module.forward

    torch.compile(function, backend=keep, fullgraph=True)(*operands)
    return [str(node.target) for node in graphs[0].graph.nodes]


def is_ours(targets):
    """Whether one of a graph's calls is an operator of the package."""
    return any("keras_diagwise" in each for each in targets)


@plans
@compilers
def test_a_plan_runs_in_one_graph(plan, compiler):
    compiled = torch.compile(convolved(plan), backend=compiler, fullgraph=True)
    assert_as_stock(compiled, stock, draw(2, 9, 8, 4), draw(3, 3, 4, 2))


@plans
def test_the_graph_holds_one_operator(plan):
    """And the kernel's reshape."""
    targets = graph_of(convolved(plan), draw(2, 9, 8, 4), draw(3, 3, 4, 1))
    assert sum("keras_diagwise.convolve" in each for each in targets) == 1
    assert not any("conv2d" in each for each in targets)


def test_what_is_fused_is_taken_apart():
    """The compiler gets sums and products of `direct`, in both directions."""
    graphs = []

    def keep(module, example_inputs):
        graphs.append([str(node.target) for node in module.graph.nodes])
        return module.forward

    from torch._dynamo.backends.common import aot_autograd

    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
    compiled = torch.compile(convolved("direct"), backend=backend, fullgraph=True)
    gradients(compiled, draw(2, 9, 8, 4), draw(3, 3, 4, 1))
    assert len(graphs) == 2
    for targets in graphs:
        assert not any("convol" in each for each in targets)
        assert any("mul" in each for each in targets)


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("plan", ["direct", "native", "diagonal:2"])
def test_the_operator_passes_opcheck(plan, pass_name):
    inputs, kernel = draw(2, 6, 5, 4), draw(3, 3, 1, 4)
    shapes = inputs.shape, "float64", (3, 3, 4, 1)
    problem = depthwise_problem(*shapes, (1, 1), "same", "channels_last", (1, 1))
    planned = PlannedConvolution(problem, Plan(plan, plan, plan))
    left, right = {
        "forward": (inputs, kernel),
        "input_gradient": (kernel, inputs),
        "kernel_gradient": (inputs, inputs + 1),
    }[pass_name]
    operands = left.requires_grad_(), right.requires_grad_()
    torch.library.opcheck(
        operator_in_trace(), (*operands, pass_name, planned.name_in_trace)
    )


@plans
def test_batches_of_many_sizes(plan):
    compiled = torch.compile(convolved(plan), backend="aot_eager", fullgraph=True)
    for size in (2, 3, 4, 1, 5):
        assert_as_stock(compiled, stock, draw(size, 6, 6, 4), draw(3, 3, 4, 1))


@hypothesis.settings(max_examples=hypothesis.settings.default.max_examples // 4)
@hypothesis.given(
    plan=st.sampled_from(PLANS),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    side=st.integers(3, 7),
    dynamic=st.sampled_from([None, True, False]),
    breaks=st.sampled_from(["no", "before", "after", "both"]),
)
def test_breaks_and_shapes_change_no_number(plan, sizes, side, dynamic, breaks):
    """Behind a break of the graph the rest is compiled function by function."""
    torch._dynamo.reset()

    def broken(run):
        def function(inputs, kernel):
            inputs = torch.sin(inputs)
            if breaks in ("before", "both"):
                torch._dynamo.graph_break()
            outputs = run(inputs * 2, kernel)
            if breaks in ("after", "both"):
                torch._dynamo.graph_break()
            return run(torch.cos(outputs), kernel)

        return function

    compiled = torch.compile(
        broken(convolved(plan)), backend="aot_eager", dynamic=dynamic
    )
    for size in sizes:
        inputs, kernel = draw(size, side, side, 4), draw(3, 3, 4, 1)
        assert_as_stock(compiled, broken(stock), inputs, kernel)


def test_backward_behind_a_break_is_eager():
    """A backward pass behind a graph break is left alone.

    Dynamo compiled it for each layer, until it gave up.
    """
    inputs, kernel = draw(2, 6, 6, 4).requires_grad_(), draw(3, 3, 4, 1)
    eager = kd.depthwise_conv(inputs, kernel, plan="direct").sum()
    count = CompileCounter()

    @torch.compile(backend=count)
    def step():
        torch._dynamo.graph_break()
        eager.backward()

    step()
    assert inputs.grad is not None
    assert count.frame_count == 0


LAYERS = {
    "depthwise": lambda: keras.layers.DepthwiseConv2D(3, padding="same"),
    "depthwise, one dimension": lambda: keras.layers.DepthwiseConv1D(3, strides=2),
    "separable": lambda: keras.layers.SeparableConv2D(6, 3, padding="same"),
    "grouped": lambda: keras.layers.Conv2D(8, 3, groups=2),
}


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_is_in_one_graph(name, dynamic):
    """Under `dynamic=True` strides are open too, and it is stock's."""
    stock_layer = LAYERS[name]()
    shape = (2, 8, 4) if "one" in name else (2, 8, 8, 4)
    inputs = draw(*shape, dtype="float32")
    expected = to_numpy(stock_layer(inputs))
    model = keras.Sequential([keras.Input(shape[1:]), stock_layer])
    kd.convert(model, plan="direct", verbose=0)
    compiled = torch.compile(
        model.layers[0], backend="aot_eager", fullgraph=True, dynamic=dynamic
    )
    np.testing.assert_allclose(to_numpy(compiled(inputs)), expected, atol=1e-5)


def test_a_compiled_pass_fuses_in_a_trace(monkeypatch):
    """A pass that compiles alone is fused in a trace.

    A separate program would not take the tensors of a trace.
    """
    monkeypatch.setattr(backends.active, "COMPILES_ALONE", True)
    sys.modules[
        "keras_diagwise.algorithms.direct.algorithm"
    ].compiled_pass.cache_clear()
    compiled = torch.compile(
        convolved("direct:compiled"), backend="aot_eager", fullgraph=True
    )
    assert_as_stock(compiled, stock, draw(2, 6, 6, 4), draw(3, 3, 4, 1))
    sys.modules[
        "keras_diagwise.algorithms.direct.algorithm"
    ].compiled_pass.cache_clear()


def test_each_candidate_is_compiled_apart(monkeypatch):
    """Each candidate is compiled apart.

    Dynamo gives up on code that it compiled a few times, and all candidates of the
    tuner shared one; nor may sizes stay dynamic once they vary.
    """
    count = CompileCounter()
    plain = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda *args, **kwargs: plain(*args, backend=count, **kwargs)
    )
    for size in range(6, 18):
        inputs, kernel = draw(2, size, size, 4), draw(3, 3, 1, 4)
        problem = depthwise_problem(
            *(inputs.shape, "float64", (3, 3, 4, 1), 1, "same", "channels_last", 1)
        )
        run = pass_of(PassTask(problem, "forward", "inductor"), parse("direct"))
        backends.active.compiled(run, "inductor")(inputs, kernel)
    assert count.frame_count == 12


def test_a_plan_of_ones_own_is_kept(monkeypatch):
    """What is decided elsewhere compiles nothing anew of a layer with a plan."""
    count = CompileCounter()
    compiled = torch.compile(convolved(MIXED), backend=count, fullgraph=True)
    operands = draw(2, 6, 6, 4), draw(3, 3, 4, 1)
    for _ in range(10):
        compiled(*operands)
        dispatcher.forget()
    assert count.frame_count == 1


def test_an_equal_setting_forgets_nothing():
    before = dispatcher.edition
    dispatcher.settings.on_miss = dispatcher.settings.on_miss
    assert dispatcher.edition == before


def test_later_forward_mode_is_stocks():
    """Forward mode after a compilation is stock's.

    The code that Dynamo traces reads its level, so Dynamo guards it.
    """
    from torch.autograd import forward_ad

    inputs, kernel = draw(2, 6, 6, 4), draw(3, 3, 4, 1)
    compiled = torch.compile(convolved("direct"), backend="eager")
    compiled(inputs, kernel)
    tangents = []
    for run in (compiled, stock):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(inputs, inputs + 1)
            tangents.append(forward_ad.unpack_dual(run(dual, kernel)).tangent)
    np.testing.assert_allclose(*map(to_numpy, tangents), atol=1e-11)


def test_the_operator_is_defined_once():
    """By threads that ask for it together, before it is there."""
    code = """
import threading
from keras_diagwise.planning import planned_convolution
together, found = threading.Barrier(8), []
def ask():
    together.wait()
    found.append(planned_convolution.operator_in_trace())
threads = [threading.Thread(target=ask) for _ in range(8)]
for each in threads: each.start()
for each in threads: each.join()
assert len(found) == 8 and len(set(map(id, found))) == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_plan_is_compiled_anew():
    layer = kd.DiagonalwiseDepthwiseConv2D(3, plan="direct")
    inputs = draw(2, 6, 6, 4, dtype="float32")
    layer.build(inputs.shape)
    assert "keras_diagwise" in " ".join(graph_of(layer, inputs))
    layer.plan = Plan()
    compiled = torch.compile(layer, backend="aot_eager")
    np.testing.assert_allclose(to_numpy(compiled(inputs)), to_numpy(layer(inputs)))
    assert "keras_diagwise" not in " ".join(graph_of(layer, inputs))


def test_a_later_decision_is_compiled_anew(monkeypatch):
    """A later decision is compiled anew.

    `tune`, an import of decisions, and settings make the dispatcher forget.
    """
    chosen = {"plan": Plan()}

    def answer(problem, plan, environment):
        assert environment.compiler_mode == "inductor"
        return type("Answer", (), {"plan": chosen["plan"], "source": "decision"})

    monkeypatch.setattr(dispatcher, "answer", answer)
    count = CompileCounter()
    compiled = torch.compile(convolved("auto"), backend=count)
    operands = draw(2, 6, 6, 4), draw(3, 3, 4, 1)
    for _ in range(2):
        compiled(*operands)
    assert count.frame_count == 1
    chosen["plan"] = Plan("direct")
    dispatcher.forget()
    for _ in range(2):
        compiled(*operands)
    assert count.frame_count == 2
    assert_as_stock(compiled, stock, *operands)


@pytest.mark.parametrize("strict", [True, False])
def test_an_export_is_stocks(strict):
    """Whatever the plan says: others read it, who know no operator of ours."""
    layer = kd.DiagonalwiseDepthwiseConv2D(3, plan="direct")
    inputs = draw(2, 6, 6, 4, dtype="float32")
    layer.build(inputs.shape)
    exported = torch.export.export(layer, (inputs,), strict=strict)
    targets = [str(node.target) for node in exported.graph.nodes]
    assert not is_ours(targets)
    assert any("conv2d" in each for each in targets)


def test_changed_settings_are_compiled_anew():
    """Settings of a GPU's kernels are guarded, also where torch can't say whether all
    of cuDNN runs in TF32."""
    cudnn = torch.backends.cudnn
    settings = [(cudnn, "benchmark"), (cudnn, "deterministic")]
    settings += [(part, "fp32_precision") for part in (cudnn.conv, cudnn.rnn)]
    before = [getattr(*each) for each in settings]
    count, inputs, kernel = CompileCounter(), draw(2, 6, 6, 4), draw(3, 3, 4, 1)
    compiled = torch.compile(
        lambda x: convolved("direct")(x, kernel), backend=count, fullgraph=True
    )
    try:
        for frames, (setting, value) in enumerate(
            [
                (settings[0], not before[0]),
                (settings[1], not before[1]),
                (settings[3], "ieee"),  # now the two differ
                (settings[0], before[0]),
            ],
            start=2,
        ):
            compiled(inputs)
            setattr(*setting, value)
            compiled(inputs)
            assert count.frame_count == frames
    finally:
        for setting, value in zip(settings, before, strict=True):
            setattr(*setting, value)


@pytest.mark.parametrize("parts", [("conv",), ("conv", "rnn")])
def test_any_setting_of_tf32_compiles(parts):
    """torch's old setting raises an error where the new ones differ from it."""
    cudnn = torch.backends.cudnn
    before = {name: getattr(cudnn, name).fp32_precision for name in parts}
    try:
        for name in parts:
            getattr(cudnn, name).fp32_precision = "ieee"
        with pytest.raises(RuntimeError, match="allow_tf32"):
            cudnn.allow_tf32  # noqa: B018
        inputs, kernel = draw(2, 6, 6, 4), draw(3, 3, 4, 1)
        targets = graph_of(convolved("direct"), inputs, kernel)
        assert is_ours(targets)
    finally:
        for name, value in before.items():
            getattr(cudnn, name).fp32_precision = value


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_another_device_is_stocks(device):
    """In a scope of another device than Keras's, to which operands are moved, stock's
    operation is compiled."""
    with keras.device(device):
        operands = ops.ones((2, 6, 6, 4)), ops.ones((3, 3, 4, 1))
    with keras.device("meta"):
        assert not is_ours(graph_of(convolved("direct"), *operands))


def test_operands_from_elsewhere_are_ours():
    """Operands on another device that are moved to Keras's, as a GPU's data are."""
    kernel = ops.ones((3, 3, 4, 1))
    with keras.device("meta"):
        inputs = ops.ones((2, 6, 6, 4))
    assert is_ours(graph_of(convolved("direct"), inputs, kernel))


def test_a_variable_is_an_operand():
    inputs, kernel = (keras.Variable(draw(*s)) for s in [(2, 6, 6, 4), (3, 3, 4, 1)])
    assert is_ours(graph_of(lambda: convolved("direct")(inputs, kernel)))


def test_autocast_is_stocks():
    inputs, kernel = draw(2, 6, 6, 4).float(), draw(3, 3, 4, 1).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        targets = graph_of(convolved("direct"), inputs, kernel)
    assert not is_ours(targets)


def test_a_model_trains_as_stock(monkeypatch):
    quick = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", quick)
    found = []
    for plan in (None, "direct"):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((12, 12, 4)),
                keras.layers.SeparableConv2D(8, 3, strides=2),
                keras.layers.Conv2D(8, 3, groups=2),
            ]
        )
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=True)
        if plan:
            kd.convert(model, plan=plan, verbose=0)
        batch = np.random.default_rng(0).normal(size=(4, 12, 12, 4)).astype("float32")
        found.append([model.train_on_batch(batch, batch[:, :3, :3, :1]) for _ in "12"])
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_a_miss_that_is_an_error_says_so(monkeypatch):
    monkeypatch.setattr(dispatcher.settings, "on_miss", "error")
    compiled = torch.compile(convolved("auto"), backend="aot_eager")
    with pytest.raises(Exception, match="A convolution was not measured here"):
        compiled(draw(2, 6, 6, 4), draw(3, 3, 4, 1))


def test_the_mode_is_tuned_and_served(tmp_path, monkeypatch):
    """`tune` measures what the compiler makes of a candidate."""
    few = [parse("native"), parse("direct")]
    for module in (candidates, comparer):
        monkeypatch.setattr(module, "candidates_of", lambda problem, pass_name: few)
    before = dispatcher.store
    dispatcher.store = type(before)(tmp_path)
    try:
        model = keras.Sequential(
            [keras.Input((6, 6, 2)), keras.layers.DepthwiseConv2D(3)]
        )
        model.compile(jit_compile=True)
        kd.convert(model, verbose=0)
        result = kd.tune(model, batch_size=2, training=False, verbose=0)
        (row,) = result.rows
        assert row.comparison.outcomes["direct"].failure in (None, "outpaced")
        assert result.environment.compiler_mode == backends.active.python_trace.MODE
    finally:
        dispatcher.store = before
