"""Findings on what is set and stored, one function per subject."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from keras_diagwise.environment import Environment
from keras_diagwise.models.environment import environment_of_models
from keras_diagwise.ops import dispatcher
from keras_diagwise.planning.planner import others_of_kind, shipped_document
from keras_diagwise.planning.source import PlanSource
from keras_diagwise.storage.files import NOT_KNOWN
from keras_diagwise.storage.locations import VARIABLE, shown
from keras_diagwise_cli.diagnosis import nvidia
from keras_diagwise_cli.diagnosis.finding import Finding
from keras_diagwise_cli.terminal.console import counted

VARIABLES = (
    "KERAS_BACKEND",
    "KERAS_DIAGWISE_STORE",
    "KERAS_DIAGWISE_ON_MISS",
    "KERAS_DIAGWISE_PRECISION",
)

MAX_NAMED = 3
"""Limit of the unusable files named."""


def variables() -> Finding:
    """The package's environment variables, without secrets."""
    known = {
        name: shown(os.environ[name]) if name in os.environ else None
        for name in VARIABLES
    }
    text = ", ".join(
        f"{name} is not set" if value is None else f"{name}={value}"
        for name, value in known.items()
    )
    return Finding("variables", "ok", text, values=known)


def backend() -> Finding:
    """The backend's device, and the environment under which decisions are looked up."""
    environment = environment_of_models()
    device = f"{environment.device_kind} {environment.device_name}"
    text = f"{environment.backend} runs on {device}. Decisions are for: {environment}"
    values = {"digest": environment.digest, **environment.to_dict()}
    if environment.device_kind == "cpu" and nvidia.has_driver():
        remedy = (
            "This machine has an NVIDIA driver. Install the backend with GPU support, "
            "for example with: pip install 'keras-diagwise[jax-cuda13]'"
        )
        return Finding("backend", "warning", text, remedy, values)
    return Finding("backend", "ok", text, values=values)


def setting(name: str) -> Finding:
    """A setting of `keras_diagwise.decisions` that a variable can set."""
    try:
        value = getattr(dispatcher.settings, name)
    except ValueError as error:
        variable = f"KERAS_DIAGWISE_{name.upper()}"
        remedy = f"Set the variable {variable} to one of these, or unset it."
        return Finding(name, "error", str(error), remedy)
    return Finding(name, "ok", value, values=value)


def store() -> Finding:
    """Location of the store, and whether it can be written."""
    remedy = f"Set the variable {VARIABLE} to a folder that can be written."
    try:
        opened = dispatcher.store
    except (ImportError, ValueError) as error:
        return Finding("store", "error", str(error), remedy)
    where = shown(opened.location)
    problem = opened.why_not_writable(environment_of_models())
    values = {"location": where, "writable": problem is None}
    if problem:
        kept = "Decisions last only as long as the process."
        if "://" in where:
            kept = "Decisions are kept on this machine until the URL can be written."
        text = f"{where} can't be written: {problem}. {kept}"
        return Finding("store", "error", text, remedy, values)
    return Finding("store", "ok", f"{where} can be written", values=values)


def decisions() -> Iterator[Finding]:
    """Kept decisions by environment, and files that can't be read."""
    document, unusable = dispatcher.store.inspected()
    here = environment_of_models()
    counts = {"here": 0, "other versions": 0, "elsewhere": 0}
    for environment, _ in document:
        counts[kept_for(environment, here)] += 1
    yield of_decisions(counts)
    yield of_files(unusable)


def kept_for(environment: Environment, here: Environment) -> str:
    """Whether a decision holds here, for other versions here, or elsewhere."""
    if environment == here:
        return "here"
    return "other versions" if here.is_same_place(environment) else "elsewhere"


def of_decisions(counts: dict[str, int]) -> Finding:
    text = (
        f"{counts['here']} for this environment, {counts['other versions']} for this "
        f"device under other versions, {counts['elsewhere']} for other environments"
    )
    if counts["other versions"] and not counts["here"]:
        remedy = "Versions have changed. Measure again: keras-diagwise tune"
        return Finding("decisions", "warning", text, remedy, counts)
    return Finding("decisions", "ok", text, values=counts)


def of_files(unusable: dict[str, str]) -> Finding:
    values = {"count": len(unusable), "files": dict(list(unusable.items())[:100])}
    if not unusable:
        text = "every file of the store can be read"
        return Finding("files", "ok", text, values=values)
    named = [f"{path or 'the folder'}: {reason}" for path, reason in unusable.items()][
        :MAX_NAMED
    ]
    more = ["…"] if len(unusable) > MAX_NAMED else []
    count = counted(len(unusable), "file")
    text = "\n".join([f"{count} can't be used and will be ignored:", *named, *more])
    remedy = "Remove them, and measure again what they held: keras-diagwise tune"
    if NOT_KNOWN in unusable.values():
        remedy = "Upgrade this installation, or let the later version alone use them"
        if {*unusable.values()} != {NOT_KNOWN}:
            remedy += "; remove the damaged ones"
    return Finding("files", "warning", text, remedy, values)


def shipped() -> Finding:
    """Shipped decisions that serve here, by source, and the most similar device."""
    document, here = shipped_document(), environment_of_models()
    sources = Counter(source_of(environment, here) for environment, _ in document)
    unused = sources.pop("none", 0)
    text = (
        f"{sources.total()} of {len(document)} decisions shipped with the package can "
        "be used here"
    )
    if sources:
        by_source = (f"{source}: {count}" for source, count in sources.items())
        text += f" ({', '.join(by_source)})"
    others = others_of_kind(document, here)
    if others and set(sources) == {PlanSource.OTHER_DEVICE}:
        text += f". The device most like this one: {others[0].device}"
    return Finding(
        "shipped",
        "ok",
        text,
        "" if sources else "Measure on this device: keras-diagwise tune",
        {**sources, "none": unused},
    )


def source_of(environment: Environment, here: Environment) -> str:
    """Plan source that decisions of an environment serve as here, or `"none"`."""
    if environment == here:
        return PlanSource.DECISION
    if here.is_same_place(environment):
        return PlanSource.OTHER_VERSIONS
    return PlanSource.OTHER_DEVICE if here.is_same_kind(environment) else "none"
