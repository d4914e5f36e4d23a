"""What ends a process that tunes: Ctrl-C and SIGKILL leave no child behind, and lose
nothing that was decided."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keras_diagwise.storage.store import Store
from keras_diagwise.tuner.candidates import is_decided
from tests.algorithms.suite import depthwise

PROBLEMS = [depthwise((n, n), 2, (3, 3)) for n in range(5, 105)]
"""More than are decided before a signal comes."""

SECONDS = 120.0
"""What anything may take before it is taken to hang."""

TUNE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
import keras_diagwise
from tests.tuner.test_interruption import PROBLEMS
keras_diagwise.tune(PROBLEMS, verbose=0)
"""
TUNER = """
from keras_diagwise.storage.store import Store
from keras_diagwise.tuner.tuner import Tuner
from tests.tuner.test_interruption import PROBLEMS
tuner = Tuner(Store())
for problem in PROBLEMS:
    tuner.tune(problem)
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the children are found in /proc"
)


@pytest.fixture
def tuning(tmp_path):
    """Starts a program that tunes, and gives it and its child once it has decided
    a pass."""
    started = []

    def start(program):
        environment = {**os.environ, "KERAS_DIAGWISE_STORE": str(tmp_path)}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        wait_until(lambda: decisions_in(tmp_path) or process.poll() is not None)
        (child,) = children_of(process.pid)
        return process, child

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_until(holds):
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def decisions_in(folder):
    return [decision for _, decision in Store(folder).document()]


def children_of(pid):
    """The processes that run the tuner's runner for this one."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(child) for path in listed for child in path.read_text().split()]
    return [child for child in found if "keras_diagwise" in command_of(child)]


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def is_gone(pid):
    """Whether it has ended; it may not have been buried yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX"
    except OSError:
        return True


def test_ctrl_c_ends_it_cleanly(tuning, tmp_path):
    """Ctrl-C ends tuning cleanly and keeps the results so far."""
    process, child = tuning(TUNE)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == -signal.SIGINT
    assert said.strip().endswith("KeyboardInterrupt")
    wait_until(lambda: is_gone(child))
    assert_kept(tmp_path)


def test_a_killed_process_ends_its_child(tuning, tmp_path):
    process, child = tuning(TUNER)
    process.kill()
    wait_until(lambda: is_gone(child))
    assert_kept(tmp_path)


def assert_kept(folder):
    """What is in the store is whole, though not all was measured."""
    kept = decisions_in(folder)
    assert 0 < len(kept) < len(PROBLEMS)
    for decision in kept:
        assert all(is_decided(decision, name) for name in decision.passes)
