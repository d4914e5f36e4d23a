"""The dispatcher: what it makes of a call, without a memo."""

import pytest

from keras_diagwise.planning.call import DEPTHWISE, GROUPED, Call
from keras_diagwise.planning.dispatch import Dispatcher
from keras_diagwise.planning.planner import Planner
from keras_diagwise.storage.document import Document
from keras_diagwise.storage.store import Store


@pytest.fixture
def dispatcher():
    """One that knows nothing, and can't measure."""
    return Dispatcher(Planner(Document(), Document()))


def call(kind=DEPTHWISE, shape=(2, 6, 6, 4), kernel_shape=(3, 3, 4, 1), plan="auto"):
    return Call(
        kind=kind,
        input_shape=shape,
        dtype="float32",
        kernel_shape=kernel_shape,
        strides=1,
        padding="valid",
        data_format="channels_last",
        dilation_rate=1,
        plan=plan,
    )


def test_a_plan_that_is_given_is_the_calls(dispatcher):
    found = dispatcher.convolution(call(plan="direct"), tracing=False)
    assert str(found.plan) == "direct"
    assert found.problem == call().problem
    assert not found.is_of_this_device


def test_a_wrong_variable_can_be_replaced(monkeypatch, tmp_path):
    """A store that the variable names and that can't be opened is replaced by one that
    is set, and the error names the variable."""
    monkeypatch.setenv("KERAS_DIAGWISE_STORE", "nonsense://host/path")
    fresh = Dispatcher()
    with pytest.raises((ImportError, ValueError), match="KERAS_DIAGWISE_STORE"):
        fresh.planner  # noqa: B018
    fresh.store = Store(tmp_path)
    assert fresh.store.location == str(tmp_path)


def test_a_dense_call_is_stocks(dispatcher):
    """A dense call of several channels is stock's, whatever its plan."""
    dense = call(GROUPED, kernel_shape=(3, 3, 4, 8), plan="direct")
    assert dispatcher.convolution(dense, tracing=False) is None
    one_channel = call(shape=(2, 6, 6, 1), kernel_shape=(3, 3, 1, 1), plan="direct")
    assert dispatcher.convolution(one_channel, tracing=False) is not None


def test_unknown_channels_are_stocks(dispatcher):
    unknown = call(shape=(None, None, None, None), plan="direct")
    assert dispatcher.convolution(unknown, tracing=False) is None


def test_misses_are_queued_without_a_tuner(dispatcher):
    with dispatcher.settings.temporarily(on_miss="tune"):
        assert dispatcher.convolution(call(), tracing=False) is None
    assert [problem for _, problem in dispatcher.queue] == [call().problem]
