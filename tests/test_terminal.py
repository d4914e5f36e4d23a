"""What is printed: on any stream, and the time left of a progress bar."""

import io
import sys

import keras
import pytest
import rich.console
import rich.progress

import keras_diagwise as kd
from keras_diagwise._terminal import TimeLeftColumn, standard_console


class Clock:
    """A time that passes when it is told to."""

    now = 0.0

    def __call__(self):
        return self.now


def shown(total, steps, waited=0.0):
    """What the column shows after steps of some seconds each, and some seconds more."""
    clock = Clock()
    bar = rich.progress.Progress(
        TimeLeftColumn(),
        console=rich.console.Console(file=io.StringIO()),
        get_time=clock,
    )
    task = bar.add_task("", total=total)
    for seconds in steps:
        clock.now += seconds
        bar.advance(task)
    clock.now += waited
    return bar.columns[0].render(bar.tasks[0]).plain


def test_long_steps_tell_the_time_left():
    """The time left is told by the pace of long steps too."""
    assert shown(10, [40.0] * 6) == "2:40 left"


def test_a_slow_step_raises_the_time_left():
    """A step that takes longer raises the time left.

    The tuner's last pass took longer, with 0:04 left for eleven seconds.
    """
    assert shown(10, [1.0] * 9) == "0:01 left"
    assert shown(10, [1.0] * 9, waited=27.0) == "0:04 left"


def test_nothing_is_told_that_is_not_known():
    assert shown(None, [1.0, 1.0]) == ""
    assert shown(10, []) == ""


def test_nothing_is_left_at_the_end():
    assert shown(3, [1.0] * 3) == ""


def stream_of(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)


def written(stream):
    return stream.buffer.getvalue().decode(stream.encoding)


@pytest.mark.parametrize(
    ("encoding", "seen"),
    [("utf-8", "A → B, 3×3 …"), ("ascii", "A > B, 3x3 ~"), ("cp1252", "A > B, 3x3 ~")],
)
def test_unencodable_characters_are_replaced(encoding, seen, monkeypatch):
    stream = stream_of(encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    standard_console().print("A → B, 3×3 …", highlight=False)
    assert written(stream).strip() == seen


def test_the_stream_stays_the_users(monkeypatch):
    stream = stream_of("ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    standard_console(stderr=True).print("→")
    assert sys.stderr is stream
    with pytest.raises(UnicodeEncodeError):
        stream.write("→")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_conversion_prints_on_any_stream(encoding, monkeypatch):
    """A conversion is printed and stays, whatever the stream."""
    stream = stream_of(encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    model = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.DepthwiseConv2D(3)])
    kd.convert(model)
    assert isinstance(model.layers[0], kd.DiagonalwiseDepthwiseConv2D)
    assert "DepthwiseConv2D >" in written(stream)


def test_a_stream_that_fails_undoes_nothing(monkeypatch):
    class Broken(io.StringIO):
        def write(self, text):
            raise OSError("no space left")

    model = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.DepthwiseConv2D(3)])
    monkeypatch.setattr(sys, "stdout", Broken())
    with pytest.raises(OSError, match="no space"):
        kd.convert(model)
    assert isinstance(model.layers[0], kd.DiagonalwiseDepthwiseConv2D)
