"""The time left of a progress bar."""

import io

import rich.console
import rich.progress

from keras_diagwise._terminal import ESTIMATE_PERIOD, TimeLeftColumn


class Clock:
    """A time that passes when it is told to."""

    now = 0.0

    def __call__(self):
        return self.now


def shown(total, steps):
    """What the column shows after steps of some seconds each."""
    clock = Clock()
    bar = rich.progress.Progress(
        TimeLeftColumn(),
        console=rich.console.Console(file=io.StringIO()),
        get_time=clock,
        speed_estimate_period=ESTIMATE_PERIOD,
    )
    task = bar.add_task("", total=total)
    for seconds in steps:
        clock.now += seconds
        bar.advance(task)
    return bar.columns[0].render(bar.tasks[0]).plain


def test_what_is_left_is_told_by_the_pace_of_long_steps_too():
    assert shown(10, [40.0] * 6) == "2:40 left"


def test_nothing_is_told_that_is_not_known():
    assert shown(None, [1.0, 1.0]) == ""
    assert shown(10, []) == ""


def test_nothing_is_left_at_the_end():
    assert shown(3, [1.0] * 3) == ""
