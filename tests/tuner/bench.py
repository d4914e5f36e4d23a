"""A runner on which nothing runs: what each candidate gives is said beforehand."""

import dataclasses
import threading
import time

from keras_diagwise.tuner.roofline import Roofline
from keras_diagwise.tuner.runner import FailedError, FirstRun
from keras_diagwise.tuner.verify import Error, standard_problem

STRICT, LENIENT = 1e-5, 1e-2
"""What rounding explains of an error, and of native's."""

ROOFLINE = Roofline(copies=((1, 1e-9), (2**30, 1e-8)), flops_per_second=1e15)


@dataclasses.dataclass
class Bench:
    """Stands for a runner.

    Attributes:
        seconds: what a candidate takes, by its name; `OTHERS` if it has none.
        errors: how large its error is, by its name.
        failures: the failure of its first run, by its name.
        failures_when_timed: that of later ones.
        standard_error: that of the backend's own dense convolution.
        fail_together: a failure of candidates that are timed together.
        before: called before each request.
        compiled: what was compiled ahead, each time: pass and candidate.
        asked: what was examined: pass and candidate.
        timed: what was timed: the candidates' names, and for how long.
    """

    seconds: dict = dataclasses.field(default_factory=dict)
    errors: dict = dataclasses.field(default_factory=dict)
    failures: dict = dataclasses.field(default_factory=dict)
    failures_when_timed: dict = dataclasses.field(default_factory=dict)
    standard_error: float = 0.0
    fail_together: str | None = None
    before: object = lambda: None
    compiled: list = dataclasses.field(default_factory=list)
    asked: list = dataclasses.field(default_factory=list)
    timed: list = dataclasses.field(default_factory=list)
    busy: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    OTHERS = 1e-3

    def compile(self, jobs):
        self.compiled.append([(task.pass_name, str(each)) for task, each in jobs])

    def examine(self, task, candidate, enough=float("inf"), patience=None):
        if task.problem == standard_problem(task.problem.dtype):
            return FirstRun(1e-9, error(self.standard_error), 0.0)
        self.before()
        with Busy(self.busy):
            name = str(candidate)
            self.asked.append((task.pass_name, name))
            if name in self.failures:
                return FirstRun(failure=self.failures[name], reason="planted")
            seconds = self.seconds.get(name, self.OTHERS)
            if seconds > enough:
                return FirstRun(seconds, None, 0.0, "outpaced", "planted")
            return FirstRun(seconds, error(self.errors.get(name, 0.0)), 0.0)

    def time(self, task, candidates, seconds, min_rounds, expected=0.0):
        self.before()
        with Busy(self.busy):
            names = [str(each) for each in candidates]
            self.timed.append((names, seconds))
            for name in names:
                if name in self.failures_when_timed:
                    raise FailedError(self.failures_when_timed[name], "planted")
            if self.fail_together and len(names) > 1:
                raise FailedError(self.fail_together, "planted")
            return {
                each: [self.seconds.get(str(each), self.OTHERS)] * min_rounds
                for each in candidates
            }

    def roofline(self, compiler_mode, dtype):
        return ROOFLINE

    def close(self):
        pass


def error(relative):
    """An error of this many times the root mean square."""
    return Error(relative, relative / STRICT, relative / LENIENT)


class Busy:
    """Fails where two things are measured at once."""

    def __init__(self, lock):
        self._lock = lock

    def __enter__(self):
        assert self._lock.acquire(blocking=False), "two measurements at once"
        time.sleep(1e-4)  # lets the others try

    def __exit__(self, *_):
        self._lock.release()
