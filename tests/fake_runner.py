"""An empty store, and a runner that says what is fast without measuring: for tests
of what follows from it."""

import contextlib

from keras_diagwise import backends
from keras_diagwise.ops import dispatcher
from keras_diagwise.planning.tuning_queue import TuningQueue
from keras_diagwise.storage.document import Document
from keras_diagwise.storage.store import Store
from keras_diagwise.tuner.roofline import Roofline
from keras_diagwise.tuner.runner import FirstRun
from keras_diagwise.tuner.verify import Error, standard_problem

NONE = Error(0.0, 0.0, 0.0)


class FakeRunner:
    """Each candidate takes the seconds that its name is given, or else one.

    Attributes:
        seconds: by the names of candidates.
        asked: the problem and the pass of each candidate that was examined.
    """

    def __init__(self, seconds):
        self.seconds, self.asked = seconds, []

    def __call__(self, patience, until):
        return self

    def compile(self, jobs):
        pass

    def examine(self, task, candidate, enough=0.0, patience=0.0):
        if task.problem == standard_problem(task.problem.dtype):
            return FirstRun(1e-9, NONE, 0.0)
        self.asked.append((task.problem, task.pass_name, str(candidate)))
        return FirstRun(self.seconds.get(str(candidate), 1.0), NONE, 0.0)

    def time(self, task, candidates, seconds, min_rounds, expected=0.0):
        return {
            each: [self.seconds.get(str(each), 1.0)] * min_rounds for each in candidates
        }

    def roofline(self, compiler_mode, dtype):
        return Roofline(((1, 1e-9), (2**30, 1e-6)), 1e15)

    def close(self):
        pass


def install(monkeypatch, **seconds):
    """Lets every tuner work at one, which is returned; `direct` is ten times faster
    than the others unless `seconds` say otherwise."""
    runner = FakeRunner(seconds or {"direct": 0.1})
    monkeypatch.setattr("keras_diagwise.tuner.tuner.SubprocessRunner", runner)
    return runner


@contextlib.contextmanager
def nothing_known(monkeypatch, location):
    """The package with an empty store at a location, nothing shipped, and nothing
    queued; afterwards as it was."""
    monkeypatch.setattr(dispatcher.planner, "store", Store(location))
    monkeypatch.setattr(dispatcher.planner, "shipped", Document())
    monkeypatch.setattr(dispatcher, "queue", TuningQueue())
    with dispatcher.settings.temporarily(on_miss="nearest"):
        yield dispatcher
    dispatcher.forget()


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
