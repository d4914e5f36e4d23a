"""Workers that tune the same model together, forked from a process in which all is
imported, so that nothing but the tuning takes time. Nothing is measured really.

python -m tests.models.crowd together STORE
python -m tests.models.crowd killed STORE MOMENTS
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import keras

import keras_diagwise as kd
from keras_diagwise.models import shared_check
from keras_diagwise.models.check import overrule
from keras_diagwise.models.report import ModelCheck
from keras_diagwise.ops import dispatcher
from keras_diagwise.storage import leases
from keras_diagwise.storage.document import Document
from keras_diagwise.storage.store import Store
from keras_diagwise.tuner import tuner
from tests.fake_runner import FakeRunner

LEASE = 0.4
SECONDS_OF_A_PASS = 0.01
MAX_LIFE = 0.6
SECONDS = 60.0
"""What a worker may take before it is taken to hang."""


class SlowRunner(FakeRunner):
    """Writes down what it is asked, which takes its time."""

    def __init__(self, log):
        super().__init__({"direct": 0.1})
        self._log = log

    def time(self, task, candidates, seconds, min_rounds, expected=0.0):
        write(self._log, "measured", task.problem.digest, task.pass_name)
        time.sleep(SECONDS_OF_A_PASS)
        return super().time(task, candidates, seconds, min_rounds)


def write(log, *words):
    """A line, at once and whole, of however many write."""
    with open(log, "ab", buffering=0) as lines:
        lines.write(json.dumps([os.getpid(), *words]).encode() + b"\n")


def small_model():
    layers = [keras.layers.DepthwiseConv2D(2, padding="same") for _ in range(4)]
    strided = [keras.layers.DepthwiseConv2D(3, 2, padding="same") for _ in range(3)]
    return kd.convert(
        keras.Sequential([keras.Input((9, 9, 4)), *layers, *strided]), verbose=0
    )


def overruling(log):
    """A check by which native serves in every first forward pass."""

    def check_step(model, decisions, **options):
        write(log, "checked")
        time.sleep(SECONDS_OF_A_PASS)
        first = next(iter(decisions.values()))
        overruled = overrule(first, "forward", "planted")
        return ModelCheck(1.0, 2.0, 0.5, ("forward",)), [overruled]

    return check_step


def work(model, store, log):
    """What a worker does: it tunes, and writes down the plans that it ends with."""
    dispatcher.store = Store(store)
    report = kd.tune(model, batch_size=2, verbose=0)
    plans = {line.path: str(line.plan) for line in kd.summary(model, batch_size=2)}
    write(log, "ended", plans, len(report.undecided), report.model.to_dict())


def forked(*arguments, host=None):
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        if host:
            leases.host = lambda: host
            tuner.host = lambda: host
        work(*arguments)
        status = 0
    finally:
        os._exit(status)


def status_of(pid):
    """How a worker ended, or that it did not in time."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "blocked"


def together(model, folder):
    """Two workers of two machines, from an empty store."""
    pids = [forked(model, folder, folder / "log", host=f"host-{n}") for n in range(2)]
    return {"statuses": [status_of(pid) for pid in pids]}


def killed(model, folder, moments):
    """Two workers, again and again from an empty store, of which one is killed at some
    moment: as on this machine, where that is seen, or on another, where it is not."""
    draw = random.Random(0)
    statuses = []
    for n in range(moments):
        store, log = folder / str(n), folder / f"log-{n}"
        prepare(log)
        one = forked(model, store, log, host="elsewhere" if n % 2 else None)
        other = forked(model, store, log)
        time.sleep(draw.uniform(0, MAX_LIFE))
        os.kill(one, signal.SIGKILL)
        os.waitpid(one, 0)
        statuses.append(status_of(other))
    return {"statuses": statuses}


def prepare(log):
    log.touch()
    tuner.SubprocessRunner = lambda timeout, until: SlowRunner(log)
    shared_check.check_step = overruling(log)


def main(kind, folder, *numbers):
    leases.LEASE_SECONDS, tuner.SECONDS_BETWEEN_LOOKS = LEASE, 0.02
    dispatcher.planner.shipped = Document()
    model, folder = small_model(), Path(folder)
    prepare(folder / "log")
    found = globals()[kind](model, folder, *map(int, numbers))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
