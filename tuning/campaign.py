"""The GPU campaign: a queue of small jobs, the most informative first.

    python -m tuning --setting gpu [--minutes 9.5] [--backends torch,jax]

Each job runs in its backend's process, and its result is appended to
tuning/results/gpu/campaign.jsonl when it ends; known jobs are not run again. A job that
takes too long is killed with its process.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import rich.box
import rich.console
import rich.table

from keras_diagwise.problem import PASSES, Problem
from tuning.answers import ENDED, Answering
from tuning.records import Records
from tuning.workloads import headlines

MAX_SECONDS = 60.0
"""Time limit of a job, without the start of its process."""
MAX_SECONDS_OF_A_MODEL = 180.0
"""Time limit of a job on a model: XLA tries cuDNN's kernels for each convolution, and
tuning also checks the step."""
SECONDS_TO_START = 60.0
MAX_TRIES = 2

REHEARSED = 9
"""Pixels along an axis, and limit of taps: the interpreter takes milliseconds a tap."""

GPU_DTYPES = ("float32", "bfloat16")
MODELS = ("MobileNetV2", "EfficientNetB0")
POLICIES = ("mixed_bfloat16", "float32")
STOCK, TRITON, TUNED = None, "triton", "auto"


@dataclasses.dataclass(frozen=True)
class Job:
    """A measurement: one of `jobs.JOBS`, on a backend, with its arguments."""

    name: str
    backend: str
    arguments: dict

    @property
    def seconds(self) -> float:
        """Time limit."""
        of_a_model = self.name in ("step", "tune")
        return MAX_SECONDS_OF_A_MODEL if of_a_model else MAX_SECONDS

    @property
    def key(self) -> list:
        """Key of its record."""
        return [self.name, self.backend, self.arguments]

    def __str__(self) -> str:
        problem = self.arguments.get("problem")
        words = [str(Problem.from_dict(problem))] if problem else []
        words += [
            str(value)
            for name, value in self.arguments.items()
            if name not in ("problem", "problems")
        ]
        return f"{self.name} on {self.backend}: {', '.join(words)}"


@dataclasses.dataclass(frozen=True)
class Scale:
    """Scale of the campaign.

    Attributes:
        problems: problems that a device is judged by.
        dtypes: dtypes of the problems.
        image_size: image size of whole models.
        batch_size: batch size of whole models.
        models: the models.
        policies: dtype policies of the models.
        steps: timed steps of each model.
        tuning: seconds for each model's tuning.
        decisions: a folder of the results for decisions.
    """

    problems: tuple[Problem, ...]
    dtypes: tuple[str, ...] = GPU_DTYPES
    image_size: int = 224
    batch_size: int = 64
    models: tuple[str, ...] = MODELS
    policies: tuple[str, ...] = POLICIES
    steps: int = 12
    tuning: float = 120.0
    decisions: str = "gpu/decisions"


def full() -> Scale:
    return Scale(tuple(headlines()))


def rehearsal() -> Scale:
    """The campaign's jobs at a scale that a CPU and an interpreter do in minutes."""
    small = [
        dataclasses.replace(
            each, batch=1, spatial_shape=(REHEARSED,) * each.rank, groups=8
        )
        for each in headlines()
        if each.taps <= REHEARSED
    ]
    few = {"dtypes": GPU_DTYPES[:1], "models": MODELS[:1], "policies": POLICIES[1:]}
    short = {"steps": 1, "tuning": 5.0, "decisions": "rehearsal/decisions"}
    return Scale(tuple(small), image_size=32, batch_size=1, **few, **short)


def jobs_of(scale: Scale, backends: Iterable[str]) -> Iterator[Job]:
    """The jobs on the given backends, in order."""
    for job in all_jobs(scale):
        if job.backend in backends:
            yield job


def all_jobs(scale: Scale) -> Iterator[Job]:
    """All jobs; those that teach most in the least time come first."""
    problems = [
        dataclasses.replace(each, dtype=dtype)
        for dtype in scale.dtypes
        for each in scale.problems
    ]
    by_kernel = {
        (each.kernel_size, each.strides): each
        for each in reversed(scale.problems)
        if each.rank == 2 and each.data_format == "channels_last"
    }
    some = list(reversed(by_kernel.values()))
    asked = [each.to_dict() for each in problems]
    yield Job("limits", "torch", {})
    yield Job("compile_programs", "torch", {"problems": asked})
    for each in asked:
        yield Job("compare", "torch", {"problem": each, "candidates": [], **VARIANTS})
    yield Job("limits", "jax", {})
    for problem in some:
        candidates = {"candidates": ["direct", "triton"]}
        yield Job("compare", "jax", {"problem": problem.to_dict(), **candidates})
    for each in asked:
        yield Job("settings", "torch", {"problem": each})
    for problem in (some[0], some[-1]):
        problem = dataclasses.replace(problem, dtype=scale.dtypes[-1])
        for backend in ("torch", "jax"):
            candidates = {"candidates": partitions(problem)}
            yield Job("compare", backend, {"problem": problem.to_dict(), **candidates})
    sizes = {"image_size": scale.image_size, "batch_size": scale.batch_size}
    for name, policy in itertools.product(scale.models, scale.policies):
        for backend in ("torch", "jax"):
            model = {"name": name, **sizes, "steps": scale.steps, "policy": policy}
            for plan in (STOCK, TRITON):
                yield Job("step", backend, {**model, "plan": plan})
    profiled = {"problem": some[0].to_dict(), "candidate": "triton"}
    yield Job("profile", "torch", profiled)
    for problem in some:
        candidates = {"candidates": ["direct:compiled", "direct:rows:compiled"]}
        yield Job("compare", "torch", {"problem": problem.to_dict(), **candidates})
    asked_of_tuner = {"seconds": scale.tuning, "to": scale.decisions}
    for name, policy in itertools.product(scale.models, scale.policies):
        for backend in ("torch", "jax"):
            model = {"name": name, **sizes, "policy": policy}
            yield Job("tune", backend, {**model, **asked_of_tuner})
            tuned = {"steps": scale.steps, "plan": TUNED}
            yield Job("step", backend, {**model, **tuned})


VARIANTS = {"variants": True}


def partitions(problem: Problem) -> list[str]:
    """The paper's algorithm in blocks of 8 and 32, or of all channels."""
    sizes = sorted({min(size, problem.channels) for size in (8, 32)})
    names = [f"diagonal:{size}" for size in sizes]
    return [*names, *(f"{name}:split" for name in names if problem.channels > 8)]


class Worker:
    """A process that runs the jobs of a backend, one at a time."""

    def __init__(self, backend: str):
        self._process = Answering(backend, "tuning.jobs")
        self._starting = SECONDS_TO_START

    def ask(self, job: Job, seconds: float) -> dict:
        """The result of a job, or its error.

        Raises:
            TimeoutError: if it takes longer; the worker is then unusable.
        """
        request = job.name, job.arguments
        found = self._process.ask(request, seconds + self._starting)
        self._starting = 0.0
        return found

    def end(self) -> None:
        self._process.end()


def run(scale: Scale, backends: Iterable[str], until: float, folder: Path) -> bool:
    """Runs the jobs not done yet until a `time.monotonic()`; returns whether all are.

    A job that was begun but not done, as this process was killed or the job took too
    long, is tried once more.
    """
    records = Records(folder / "campaign.jsonl")
    begun = Records(folder / "campaign-begun.jsonl")
    workers: dict[str, Worker] = {}
    try:
        for job in jobs_of(scale, tuple(backends)):
            tries = sum(line["key"] == job.key for line in begun.lines)
            if job.key in records or tries >= MAX_TRIES:
                continue
            left = until - time.monotonic()
            if left < 5:
                return False
            begun.add(job.key)
            if job.backend not in workers:
                workers[job.backend] = Worker(job.backend)
            started = time.monotonic()
            try:
                found = workers[job.backend].ask(job, min(job.seconds, left))
            except TimeoutError:
                workers.pop(job.backend).end()
                if left < job.seconds:
                    return False
                found = {"error": f"it took more than {job.seconds:.0f} s"}
            if found.get("error") == ENDED:
                workers.pop(job.backend).end()
            seconds = round(time.monotonic() - started, 1)
            records.add(job.key, seconds=seconds, **found)
            print(f"{seconds:5.1f} s  {job}  {found.get('error', '')}", flush=True)
    finally:
        for worker in workers.values():
            worker.end()
    return True


def show(folder: Path) -> None:
    """Prints a table of all comparisons, with the gain over native and the share of the
    device's copy rate, then the timed steps and failed jobs."""
    lines = Records(folder / "campaign.jsonl").lines
    rates = {
        line["key"][1]: max(rate for _, rate in line["answer"]["copies"])
        for line in lines
        if line["key"][0] == "limits" and "answer" in line
    }
    console = rich.console.Console(width=150)
    table = rich.table.Table(box=rich.box.SIMPLE)
    for title in ("backend", "problem", "pass", "native", "of the copy rate", "best"):
        table.add_column(title)
    for line in lines:
        name, backend, arguments = line["key"]
        if name == "compare" and "answer" in line:
            problem = Problem.from_dict(arguments["problem"])
            roofline = problem.least_bytes / rates.get(backend, float("nan"))
            for pass_name in PASSES:
                rows = line["answer"]["passes"][pass_name]
                table.add_row(
                    backend, str(problem), pass_name, *columns_of(rows, roofline)
                )
    console.print(table)
    for line in lines:
        if line["key"][0] == "step" and "answer" in line:
            _, backend, model = line["key"]
            words = [backend, *map(str, model.values())]
            console.print(*words, f"{1e3 * line['answer']['seconds']:.1f} ms")
        if "error" in line:
            console.print("failed:", *line["key"][:2], line["error"])


def columns_of(rows: dict[str, dict], roofline: float) -> list[str]:
    """Native's time, the best candidate's share of the copy rate, and its name."""
    timed = {name: row["seconds"] for name, row in rows.items() if "seconds" in row}
    wrong = [name for name, row in rows.items() if "failure" in row]
    native = timed.get("native")
    if native is None:
        return ["failed", "", ""]
    best = min(timed, key=lambda name: timed[name])
    words = f"{best} {native / timed[best]:.2f}×"
    if wrong:
        words += f" (failed: {', '.join(wrong)})"
    return [f"{1e6 * native:.0f} µs", f"{roofline / timed[best]:.2f}", words]
