"""Checks of `keras-diagwise doctor`, one function per subject."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_diagwise.cli import kept_memory
from keras_diagwise.version import __version__

STATES = ("ok", "warning", "error")

VARIABLES = (
    "KERAS_BACKEND",
    "KERAS_DIAGWISE_STORE",
    "KERAS_DIAGWISE_ON_MISS",
    "KERAS_DIAGWISE_PRECISION",
)

PACKAGES = ("keras", "jax", "jaxlib", "tensorflow", "tensorflow-cpu", "torch")

NVIDIA_DRIVER = Path("/dev/nvidiactl")
"""Exists where the NVIDIA driver is loaded, on Linux."""

MAX_NAMED = 3
"""Limit of the unusable files named."""

SECONDS_TO_COMPUTE = 60.0

WORTH_SETTING = 1.03
"""Least gain, by the 95 % bound, at which setting the variable is advised."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """A finding on one subject.

    Attributes:
        subject: one word.
        state: one of `STATES`.
        text: the finding.
        remedy: what the user can do about it, if anything.
        command: a shell command for the remedy, printed unwrapped.
        values: the finding in JSON's types.
    """

    subject: str
    state: str
    text: str
    remedy: str = ""
    values: Any = None
    command: str = ""


def worst(findings: list[Finding]) -> str:
    """The worst state of all findings."""
    return max((each.state for each in findings), key=STATES.index)


def found(subject: str, look: Callable[..., Finding], *arguments) -> Finding:
    """The finding of `look`; an exception becomes a finding with state `"error"`."""
    try:
        return look(*arguments)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return Finding(subject, "error", text)


def versions() -> Finding:
    """Versions of installed packages. Nothing is imported."""
    known = {"keras-diagwise": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            known[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    text = ", ".join(f"{name} {version}" for name, version in known.items())
    return Finding("versions", "ok", f"{text}; {platform.platform()}", values=known)


def variables() -> Finding:
    """The package's environment variables, without secrets."""
    from keras_diagwise.storage.locations import shown

    known = {
        name: shown(os.environ[name]) if name in os.environ else None
        for name in VARIABLES
    }
    text = ", ".join(
        f"{name} is not set" if value is None else f"{name}={value}"
        for name, value in known.items()
    )
    return Finding("variables", "ok", text, values=known)


def no_backend(error: Exception) -> Finding:
    """The finding if Keras can't be imported."""
    problem, _, remedy = str(error).partition(". ")
    return Finding("backend", "error", problem, f"{remedy}.")


def backend() -> Finding:
    """The backend's device, and the environment under which decisions are looked up."""
    from keras_diagwise.models.environment import environment_of_models

    environment = environment_of_models()
    device = f"{environment.device_kind} {environment.device_name}"
    text = f"{environment.backend} sees {device}. Decisions hold for: {environment}"
    values = {"digest": environment.digest, **environment.to_dict()}
    if environment.device_kind == "cpu" and NVIDIA_DRIVER.exists():
        remedy = (
            "This machine has an NVIDIA driver. Install the backend for its devices, "
            "for example with: pip install 'keras-diagwise[jax-cuda13]'"
        )
        return Finding("backend", "warning", text, remedy, values)
    return Finding("backend", "ok", text, values=values)


def setting(name: str) -> Finding:
    """A setting of `keras_diagwise.decisions` that a variable can set."""
    from keras_diagwise.ops import dispatcher

    try:
        value = getattr(dispatcher.settings, name)
    except ValueError as error:
        variable = f"KERAS_DIAGWISE_{name.upper()}"
        remedy = f"Set the variable {variable} to one of these, or unset it."
        return Finding(name, "error", str(error), remedy)
    return Finding(name, "ok", value, values=value)


def store() -> Finding:
    """Location of the store, and whether it can be written."""
    from keras_diagwise.ops import dispatcher
    from keras_diagwise.storage.locations import VARIABLE, shown

    remedy = f"Set the variable {VARIABLE} to a folder that can be written."
    try:
        opened = dispatcher.store
    except (ImportError, ValueError) as error:
        return Finding("store", "error", str(error), remedy)
    where, problem = shown(opened.location), opened.why_not_writable()
    values = {"location": where, "writable": problem is None}
    if problem:
        kept = "Decisions last for a process."
        if "://" in where:
            kept = "Decisions are kept on this machine, and sent once it can."
        text = f"{where} can't be written: {problem}. {kept}"
        return Finding("store", "error", text, remedy, values)
    return Finding("store", "ok", f"{where} can be written", values=values)


def decisions() -> Iterator[Finding]:
    """Kept decisions by environment, and files that can't be read."""
    from keras_diagwise.models.environment import environment_of_models
    from keras_diagwise.ops import dispatcher

    document, unusable = dispatcher.store.inspected()
    here = environment_of_models()
    counts = {"here": 0, "other versions": 0, "elsewhere": 0}
    for environment, _ in document:
        counts[kept_for(environment, here)] += 1
    yield of_decisions(counts)
    yield of_files(unusable)


def kept_for(environment, here) -> str:
    """Whether a decision holds here, for other versions here, or elsewhere."""
    if environment == here:
        return "here"
    return "other versions" if here.is_same_place(environment) else "elsewhere"


def of_decisions(counts: dict[str, int]) -> Finding:
    text = (
        f"{counts['here']} for this environment, {counts['other versions']} for other "
        f"versions or revisions on this device, {counts['elsewhere']} for other "
        "environments"
    )
    if counts["other versions"] and not counts["here"]:
        remedy = "Versions have changed. Measure anew: keras-diagwise tune"
        return Finding("decisions", "warning", text, remedy, counts)
    return Finding("decisions", "ok", text, values=counts)


def of_files(unusable: dict[str, str]) -> Finding:
    values = {"count": len(unusable), "files": dict(list(unusable.items())[:100])}
    if not unusable:
        return Finding("files", "ok", "all of the store can be read", values=values)
    named = [f"{path or 'the folder'}: {reason}" for path, reason in unusable.items()][
        :MAX_NAMED
    ]
    more = ["…"] if len(unusable) > MAX_NAMED else []
    count = f"{len(unusable)} file{'s' if len(unusable) > 1 else ''}"
    text = "\n".join([f"{count} can't be used and are passed over:", *named, *more])
    remedy = "Remove them; what they held is measured anew by: keras-diagwise tune"
    return Finding("files", "warning", text, remedy, values)


def shipped() -> Finding:
    """Shipped decisions that serve here, by source, and the most similar device."""
    from keras_diagwise.models.environment import environment_of_models
    from keras_diagwise.planning.planner import others_of_kind, shipped_document
    from keras_diagwise.planning.source import PlanSource

    document, here = shipped_document(), environment_of_models()
    sources = Counter(source_of(environment, here) for environment, _ in document)
    unused = sources.pop("none", 0)
    text = (
        f"{sources.total()} of {len(document)} decisions that come with the package "
        "can serve here"
    )
    if sources:
        by_source = (f"{source}: {count}" for source, count in sources.items())
        text += f" ({', '.join(by_source)})"
    others = others_of_kind(document, here)
    if others and set(sources) == {PlanSource.OTHER_DEVICE}:
        text += f". Most like this device: {others[0].device}"
    return Finding(
        "shipped",
        "ok",
        text,
        "" if sources else "Measure on this device: keras-diagwise tune",
        {**sources, "none": unused},
    )


def source_of(environment, here) -> str:
    """Plan source that decisions of an environment serve as here, or `"none"`."""
    from keras_diagwise.planning.source import PlanSource

    if environment == here:
        return PlanSource.DECISION
    if here.is_same_place(environment):
        return PlanSource.OTHER_VERSIONS
    return PlanSource.OTHER_DEVICE if here.is_same_kind(environment) else "none"


def tuner() -> Finding:
    """Whether the tuner's child process starts and computes like this one."""
    from keras_diagwise.tuner.subprocess_runner import Child, NoChildError

    try:
        child = Child()
        try:
            child.greet(float("inf"))
        finally:
            child.end()
    except NoChildError as error:
        remedy = (
            "Tuning measures in its own process instead, where a candidate that hangs "
            "or crashes takes it along. Let Python start processes, and this "
            "environment's packages be imported in them."
        )
        text = f"no child process can be started: {error}"
        return Finding("tuner", "error", text, remedy)
    return Finding("tuner", "ok", "its child process starts and computes")


def memory() -> Finding:
    """Speedup of a step if memory that it frees is kept in the process."""
    from keras_diagwise.models.environment import environment_of_models

    if environment_of_models().device_kind != "cpu":
        text = "steps take it from the device, not from the C library"
        return Finding("memory", "ok", text)
    if not kept_memory.has_tunables():
        version = ".".join(map(str, kept_memory.FIRST_GLIBC))
        text = f"not measured: that takes Linux and glibc {version} or later"
        return Finding("memory", "ok", text)
    cost = kept_memory.step_cost()
    text = (
        f"a training step of a small model takes {1e3 * cost.as_it_is:.3g} ms, and "
        f"{1e3 * cost.kept:.3g} ms where freed memory is kept in huge pages: "
        f"{cost.gain:.2f}× faster, by the 95 % bound {cost.gain_at_least:.2f}×"
    )
    values = dataclasses.asdict(cost)
    if cost.gain_at_least < WORTH_SETTING:
        return Finding("memory", "ok", text, values=values)
    value = kept_memory.with_tunables(kept_memory.KEEP_HUGE_PAGES)
    return Finding(
        "memory",
        "ok",
        text,
        "Set the variable below before you start Python: the process then keeps the "
        "most memory that it ever took.",
        values,
        f"export {kept_memory.VARIABLE}={shlex.quote(value)}",
    )


def algorithms(is_isolated: bool, advance: Callable[[float], None]) -> Finding:
    """Verifies each algorithm on a small problem, in all passes.

    Args:
        is_isolated: whether to compute in a child process.
        advance: called with the share of the work done.
    """
    from keras_diagwise.tuner.outcomes import judged, standard_error
    from keras_diagwise.tuner.runner import Runner
    from keras_diagwise.tuner.subprocess_runner import SubprocessRunner

    runner = SubprocessRunner(SECONDS_TO_COMPUTE) if is_isolated else Runner()
    tasks = list(examinations())
    results: dict = {}
    standard = {}
    try:
        for task, candidate in tasks:
            name, problem = task.pass_name, task.problem
            if name not in standard:
                mode = task.compiler_mode
                standard[name] = standard_error(runner, problem.dtype, name, mode)
            finding = runner.examine(task, candidate)
            results[name, candidate] = judged(finding, candidate, standard[name])
            advance(1 / len(tasks))
    finally:
        runner.close()
    return of_algorithms(results)


def examinations() -> Iterator[tuple]:
    """First candidate of each algorithm that supports a small problem, per pass."""
    from keras_diagwise.algorithms import ALGORITHMS
    from keras_diagwise.models.environment import environment_of_models
    from keras_diagwise.problem import PASSES, Problem
    from keras_diagwise.tuner.runner import PassTask

    problem = Problem.from_shapes((2, 8, 8, 8), (3, 3, 1, 8), padding="same")
    mode = environment_of_models().compiler_mode
    for pass_name in PASSES:
        for algorithm in ALGORITHMS.values():
            for candidate in algorithm.candidates(problem, pass_name):
                if candidate.refusal(problem) is None:
                    yield PassTask(problem, pass_name, mode), candidate
                    break


def of_algorithms(results: dict) -> Finding:
    """The finding on all algorithms in all passes."""
    values = {
        f"{candidate}, {pass_name}": each.failure or "right"
        for (pass_name, candidate), each in results.items()
    }
    wrong = {key: each for key, each in results.items() if each.failure}
    if not wrong:
        names = ", ".join(dict.fromkeys(str(candidate) for _, candidate in results))
        text = f"{names}: the numbers are right in all passes"
        return Finding("algorithms", "ok", text, values=values)
    text = "\n".join(
        f"{candidate}, {pass_name}: {each.failure}: {each.reason}"
        for (pass_name, candidate), each in wrong.items()
    )
    remedy = "The tuner does not choose it. Please report it, with all of this."
    only_native = all(str(candidate) == "native" for _, candidate in wrong)
    state = "warning" if only_native else "error"
    return Finding("algorithms", state, text, remedy, values)
