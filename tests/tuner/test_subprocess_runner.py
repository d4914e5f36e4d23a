"""The child process: where there can't be one the work is done here, and none
outlives what it was started for."""

import logging
import os
import signal
import sys
import threading
import time

import pytest

from keras_diagwise import backends
from keras_diagwise.algorithms import Direct, Native
from keras_diagwise.problem import PASSES
from keras_diagwise.storage.store import Store
from keras_diagwise.tuner import runner, subprocess_runner
from keras_diagwise.tuner.candidates import is_decided
from keras_diagwise.tuner.runner import FailedError, PassTask
from keras_diagwise.tuner.subprocess_runner import Child, SubprocessRunner
from keras_diagwise.tuner.tuner import Tuner
from tests.algorithms.suite import depthwise
from tests.fake_runner import ROOFLINE

PROBLEM = depthwise((6, 6), 4, (3, 3))
TASK = PassTask(PROBLEM, "forward", backends.active.environment()["compiler_mode"])


@pytest.fixture
def bench():
    subprocess_runner.warn_once.cache_clear()
    used = SubprocessRunner()
    yield used
    used.close()


@pytest.fixture(scope="module")
def running():
    """A runner whose child runs."""
    used = SubprocessRunner()
    assert used.examine(TASK, Native()).failure is None
    yield used
    used.close()


def command(program):
    return lambda descriptor: [sys.executable, "-c", program, str(descriptor)]


PATH = f"import sys; sys.path[:] = {sys.path!r}; sys.argv[1:] = sys.argv[-1:]\n"
ELSEWHERE = (
    f"{PATH}from keras_diagwise.tuner import subprocess_runner\n"
    "subprocess_runner.device = lambda: ('tpu', 'elsewhere')\n"
    "subprocess_runner.main()"
)

OBSTACLES = {
    "no interpreter": lambda patch: patch.setattr(sys, "executable", None),
    "an interpreter that is gone": lambda patch: patch.setattr(
        sys, "executable", os.devnull
    ),
    "not POSIX": lambda patch: patch.setattr(
        subprocess_runner, "PASSES_DESCRIPTORS", False
    ),
    "it dies at once": lambda patch: patch.setattr(
        subprocess_runner, "child_command", command("raise SystemExit('no licence')")
    ),
    "it does not start in time": lambda patch: (
        patch.setattr(subprocess_runner, "SECONDS_TO_START", 0.1),
        patch.setattr(subprocess_runner, "child_command", command("while 1: 1")),
    ),
    "it computes on another device": lambda patch: patch.setattr(
        subprocess_runner, "child_command", command(ELSEWHERE)
    ),
}


def warnings_in(caplog):
    return [r.message for r in caplog.records if r.name == "keras_diagwise"]


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_without_a_child_work_is_done_here(bench, obstacle, monkeypatch, caplog):
    OBSTACLES[obstacle](monkeypatch)
    caplog.set_level(logging.WARNING)
    first_runs = [bench.examine(TASK, each) for each in (Native(), Direct())]
    assert [each.failure for each in first_runs] == [None, None]
    assert len(bench.time(TASK, [Native(), Direct()], 0.0, 3)[Direct()]) == 3
    (warning,) = warnings_in(caplog)
    assert "measured in this process" in warning


def test_the_warning_is_given_once_a_process(monkeypatch, caplog):
    subprocess_runner.warn_once.cache_clear()
    monkeypatch.setattr(sys, "executable", None)
    for _ in range(3):
        SubprocessRunner().examine(TASK, Native())
    assert len(warnings_in(caplog)) == 1


def test_a_tuner_without_a_child_decides(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", None)
    monkeypatch.setattr(runner, "measure_roofline", lambda *arguments: ROOFLINE)
    tuner = Tuner(Store(tmp_path))
    decision = tuner.tune(PROBLEM)
    assert all(is_decided(decision, name) for name in PASSES)
    assert all(decision.passes[name].seconds["native"] for name in PASSES)


def test_timing_errors_fail_here_as_in_child(monkeypatch):
    """An exception while timing is a failure here, as in a child."""

    def raise_error(*arguments, **options):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of it")

    monkeypatch.setattr(runner, "interleaved", raise_error)
    with pytest.raises(FailedError, match="out of memory: RuntimeError") as caught:
        runner.Runner().time(TASK, [Native()], 0.0, 3)
    assert caught.value.first_run.failure == "out of memory"


def test_a_child_serves_several_requests(running):
    first = running._child
    assert running.examine(TASK, Direct()).failure is None
    assert running.time(TASK, [Direct()], 0.0, 3).keys() == {Direct()}
    assert running._child is first


def test_a_child_runs_any_function():
    """A child runs a function of a module, under variables of its own."""
    child = Child({"KERAS_DIAGWISE_TEST": "here"})
    try:
        child.greet(float("inf"))
        request = os.getenv, "KERAS_DIAGWISE_TEST"
        assert child.answer(request, timeout=60.0, until=float("inf")) == "here"
    finally:
        child.end()
    assert "KERAS_DIAGWISE_TEST" not in os.environ


def test_an_ended_child_starts_again(running):
    """A child that was ended while it waited starts again."""
    process = running._child._process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert running.examine(TASK, Direct()).failure is None


def test_what_is_compiled_ahead_is_timed(running):
    jobs = [(TASK, Native()), (TASK, Direct())]
    running.compile(jobs)
    process = running._child
    for _, candidate in jobs:
        first_run = running.examine(TASK, candidate)
        assert first_run.failure is None
        assert first_run.compile_seconds > 0
    assert len(running.time(TASK, [Native(), Direct()], 0.0, 3)[Native()]) == 3
    assert running._child is process


def test_interrupted_answers_are_discarded(running, monkeypatch):
    """The answer to an interrupted request is not given to another."""

    def interrupted(self, timeout=None):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(subprocess_runner.Connection, "poll", interrupted)
        with pytest.raises(KeyboardInterrupt):
            running.examine(TASK, Native())
    assert running._child is None
    assert running.time(TASK, [Direct()], 0.0, 3).keys() == {Direct()}


def test_each_thread_has_its_own_child(running):
    first_runs = []

    def examine():
        first_runs.append(running.examine(TASK, Direct()))

    thread = threading.Thread(target=examine)
    thread.start()
    thread.join()
    assert first_runs[0].failure is None
    assert running._child.starter is thread


def test_the_time_that_is_over_ends_the_wait(bench):
    bench.until = time.monotonic()
    with pytest.raises(TimeoutError):
        bench.examine(TASK, Native())
    assert bench._child is None


def test_limits_are_asked_again_on_a_crash(bench, monkeypatch):
    """Limits are asked for again if the child died."""
    answers = [FailedError("crash", "planted"), ROOFLINE]

    def ask(*request, **options):
        answer = answers.pop(0)
        if isinstance(answer, FailedError):
            raise answer
        return answer

    monkeypatch.setattr(bench, "_ask", ask)
    assert bench.roofline(TASK.compiler_mode, "float32") == ROOFLINE
