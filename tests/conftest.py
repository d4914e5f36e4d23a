"""Settings of every test: float64 in JAX, two virtual devices, hypothesis."""

import os

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import keras
import pytest

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
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture
def float64():
    """Keras computing in float64 for the length of a test."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)


@pytest.fixture(autouse=True)
def fresh_session():
    """Automatic names that start from the beginning in each test."""
    keras.utils.clear_session(free_memory=False)
