"""MobileNetV2 tuned at batch 128 on a GPU that is simulated, its clock too."""

import dataclasses

import keras
import pytest

from keras_diagwise import backends
from keras_diagwise.environment import Environment
from keras_diagwise.models.tune import decide
from keras_diagwise.problem import PASSES
from keras_diagwise.storage.store import Store
from keras_diagwise.tuner.candidates import candidates_of
from keras_diagwise.tuner.runner import PassTask
from keras_diagwise.tuner.tuner import Tuner
from tests.simulated_gpu import H100, SimulatedGpu, SimulatedRunner, seconds_of
from tuning.workloads import applications

BACKEND = keras.backend.backend()

pytestmark = pytest.mark.skipif(
    BACKEND not in ("jax", "torch"), reason="Triton's kernels are for JAX and torch"
)

MAX_SECONDS = 120.0
"""What the tuning of a model may take (issue 21)."""

MARGIN = 1.03
"""By which a plan is chosen, and how far the chosen may be from the best."""


@pytest.fixture
def runner(monkeypatch):
    """A runner on an H100 that is not there, in this process's place."""
    active = backends.active
    monkeypatch.setattr(active, "triton_refusal", lambda: None)
    monkeypatch.setattr(active, "compute_capability", lambda: H100.capability)
    monkeypatch.setattr(active, "COMPILES_ALONE", BACKEND == "torch")
    monkeypatch.setattr(backends, "computes_on_gpu", lambda: True)
    gpu = SimulatedGpu()
    gpu.install(monkeypatch, has_events=BACKEND == "torch")
    bench = SimulatedRunner(gpu)
    bench.install(monkeypatch)
    return bench


@pytest.fixture
def tuner(runner, tmp_path):
    here = Environment.current()
    there = dataclasses.replace(
        here,
        device_kind="gpu",
        device_name="NVIDIA H100 80GB HBM3",
        cores=H100.multiprocessors,
    )
    return Tuner(Store(tmp_path), there)


def mobilenet(dtype):
    return [
        dataclasses.replace(each, batch=128, dtype=dtype)
        for each in applications(["MobileNetV2"])
    ]


def over_the_best(decision, pass_name, mode):
    """What the decided pass takes, over the fastest of all candidates."""
    task = PassTask(decision.problem, pass_name, mode)
    taken = {
        each: seconds_of(task, each)
        for each in candidates_of(decision.problem, pass_name)
        if each.refusal(decision.problem) is None
    }
    return taken[decision.plan(MARGIN)[pass_name]] / min(taken.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_is_decided_in_two_minutes(dtype, runner, tuner):
    """And each pass by the fastest candidate, or one that is hardly slower."""
    problems = mobilenet(dtype)
    decisions = decide(tuner, problems, PASSES, has_bar=False)
    assert tuner.measured == len(problems) * len(PASSES) == 30
    assert runner.gpu.now <= MAX_SECONDS, runner.spent
    mode = tuner.environment.compiler_mode
    for decision in decisions.values():
        for pass_name in PASSES:
            assert over_the_best(decision, pass_name, mode) <= MARGIN
