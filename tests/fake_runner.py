"""A runner that measures nothing: what each candidate gives is planted."""

import dataclasses
import threading
import time
from typing import NamedTuple

from keras_diagwise import backends
from keras_diagwise.problem import Problem
from keras_diagwise.tuner.roofline import Roofline
from keras_diagwise.tuner.runner import FailedError, FirstRun
from keras_diagwise.tuner.verify import Error, standard_problem

STRICT, LENIENT = 1e-5, 1e-2
"""What rounding explains of an error, and of native's."""

ROOFLINE = Roofline(copies=((1, 1e-9), (2**30, 1e-8)), flops_per_second=1e15)


class Asked(NamedTuple):
    """A first run that was asked for."""

    problem: Problem
    pass_name: str
    candidate: str


@dataclasses.dataclass(eq=False)
class FakeRunner:
    """Stands for a runner.

    Attributes:
        seconds: what a candidate takes, by its name.
        others: what those without a name in `seconds` take.
        errors: how large its error is, by its name.
        failures: the failure of its first run, by its name.
        failures_when_timed: that of later ones.
        standard_error: that of the backend's own dense convolution.
        fail_together: a failure of candidates that are timed together.
        roofline_failure: why the roofline can't be measured.
        before: called before each request.
        compiled: what was compiled ahead, each time: pass and candidate.
        asked: what was examined.
        timeout: how long each candidate may take, by its name.
        timed: what was timed: the candidates' names, and for how long.
    """

    seconds: dict = dataclasses.field(default_factory=dict)
    others: float = 1.0
    errors: dict = dataclasses.field(default_factory=dict)
    failures: dict = dataclasses.field(default_factory=dict)
    failures_when_timed: dict = dataclasses.field(default_factory=dict)
    standard_error: float = 0.0
    fail_together: str | None = None
    roofline_failure: str | None = None
    before: object = lambda: None
    compiled: list = dataclasses.field(default_factory=list)
    asked: list = dataclasses.field(default_factory=list)
    timeout: dict = dataclasses.field(default_factory=dict)
    timed: list = dataclasses.field(default_factory=list)
    busy: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def __call__(self, timeout, until):
        return self

    def compile(self, jobs):
        self.compiled.append([(task.pass_name, str(each)) for task, each in jobs])

    def examine(self, task, candidate, enough=float("inf"), timeout=0.0):
        if task.problem == standard_problem(task.problem.dtype):
            return FirstRun(1e-9, error(self.standard_error), 0.0)
        self.before()
        with Busy(self.busy):
            name = str(candidate)
            self.asked.append(Asked(task.problem, task.pass_name, name))
            self.timeout[name] = timeout
            if name in self.failures:
                return FirstRun(failure=self.failures[name], reason="planted")
            seconds = self.seconds.get(name, self.others)
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
                each: [self.seconds.get(str(each), self.others)] * min_rounds
                for each in candidates
            }

    def roofline(self, compiler_mode, dtype):
        if self.roofline_failure:
            raise FailedError(self.roofline_failure, "planted")
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


def install(monkeypatch, **planted):
    """Lets every tuner work at one, which is returned; `direct` is ten times faster
    than the others unless it is planted otherwise."""
    runner = FakeRunner(**({"seconds": {"direct": 0.1}} | planted))
    monkeypatch.setattr("keras_diagwise.tuner.tuner.SubprocessRunner", runner)
    return runner


def traced_plans(monkeypatch):
    """The plans of ours that calls are computed by, traced or run, from now on."""
    return spied_on(monkeypatch, lambda convolution: str(convolution.plan))


def traced_convolutions(monkeypatch):
    """The same with their problems."""
    return spied_on(monkeypatch, lambda convolution: convolution)


def spied_on(monkeypatch, what):
    seen, differentiable = [], backends.active.differentiable

    def spy(convolution, *operands):
        seen.append(what(convolution))
        return differentiable(convolution, *operands)

    monkeypatch.setattr(backends.active, "differentiable", spy)
    return seen
