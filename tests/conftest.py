"""Settings of every test: float64 in JAX, four virtual devices, hypothesis."""

import os

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import keras
import pytest
from keras.src.backend.common import dtypes

from keras_diagwise.algorithms import Matmul
from keras_diagwise.ops import dispatcher
from keras_diagwise.planning.tuning_queue import TuningQueue
from keras_diagwise.precision import STANDARD
from keras_diagwise.storage.document import Document
from keras_diagwise.storage.store import Store
from tests import fake_runner

hypothesis.settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=25,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.register_profile(
    "long",
    parent=hypothesis.settings.get_profile("ci"),
    derandomize=False,
    max_examples=2000,
)
hypothesis.settings.register_profile(
    "quarter", parent=hypothesis.settings.get_profile("long"), max_examples=500
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture
def float64(monkeypatch):
    """Keras computing in float64, really, for the length of a test.

    On JAX and torch `keras.backend.result_type` makes float32 of float64, so that
    a float64 BatchNormalization computes in float32 (seen in 3.15); the table
    that says so is mended here.
    """
    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    assert keras.backend.result_type("float64", "float32") == "float64"
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


@pytest.fixture
def no_dense(monkeypatch):
    """Dense convolutions as where they have no algorithm but stock's: for tests of
    models that have some beside what they are about."""
    monkeypatch.setattr(Matmul, "is_offered", lambda *where: False)


@pytest.fixture
def store(monkeypatch, tmp_path):
    """An empty store instead of the user's, where anything may have been tuned."""
    empty = Store(tmp_path / "store")
    monkeypatch.setattr(dispatcher.planner, "store", empty)
    dispatcher.forget()
    yield empty
    dispatcher.forget()


@pytest.fixture
def nothing_known(store, monkeypatch):
    """An empty store, nothing shipped, and nothing queued."""
    monkeypatch.setattr(dispatcher.planner, "shipped", Document())
    monkeypatch.setattr(dispatcher, "queue", TuningQueue())
    with dispatcher.settings.temporarily(on_miss="nearest", precision=STANDARD):
        yield


@pytest.fixture
def runner(monkeypatch):
    """A runner that measures nothing and finds `direct` ten times faster."""
    return fake_runner.install(monkeypatch)


@pytest.fixture(autouse=True)
def fresh_session():
    """Automatic names that start from the beginning in each test."""
    keras.utils.clear_session(free_memory=False)
