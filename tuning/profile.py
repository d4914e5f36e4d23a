"""Profiles a model's step and its compilation on JAX, by kind of layer and by stage.

    KERAS_BACKEND=jax python -m tuning.profile [--names MobileNetV2,…]

Appends a line to tuning/results/<device>/profile-jax.jsonl for each model; known models
are not measured again. It holds:

- milliseconds of the converted model's training step and prediction by kind of layer,
  summed over all threads, by JAX's profiler. XLA fuses neighbours, and a fusion counts
  for the layer of its last operation; but each pass of the package is a compilation
  unit, with which nothing is fused. (Stock's step is not split: XLA turns its depthwise
  convolutions into dense ones.)
- the programs that XLA makes of the training step, by kind of layer, and the seconds of
  tracing, lowering and each stage of compilation, the last summed over all threads: for
  stock, with each pass alone converted, and with all.
"""

from __future__ import annotations

import collections
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import keras

import keras_diagwise
from keras_diagwise.models.environment import environment_of
from keras_diagwise.problem import PASSES
from tuning.models import batch_of
from tuning.steps import BATCH_SIZE, IMAGE_SIZE, STEPS, record_models
from tuning.workloads import trainable

NAMES = ("MobileNetV2", "NASNetMobile")
RUNS = 20
PLAN = keras_diagwise.Plan("direct", "direct", "direct:rows")
"""Plan whose passes are each compiled alone."""

DEPTHWISE, DENSE, REST = "depthwise convolutions", "other convolutions", "rest"
KINDS: dict[type, str] = {
    keras.layers.DepthwiseConv2D: DEPTHWISE,
    keras.layers.SeparableConv2D: DEPTHWISE,
    keras.layers.Conv2D: DENSE,
    keras.layers.Dense: DENSE,
    keras.layers.BatchNormalization: "normalization",
    keras.layers.ReLU: "activation",
    keras.layers.Activation: "activation",
}
"""Kinds of layers; the rest are pooling, additions, the loss and the optimizer."""

EXECUTING = "tf_XLA"
COMPILING = "tf_PjRtCompiler|tf_xla-cpu-codegen"
"""Threads that run XLA's programs, and threads that compile them."""

STAGES = {
    "passes over the HLO": "[a-z]|RunInvariantCheckers|PjRtCpuClient::Compile",
    "programs to LLVM": "ThunkEmitter::Emit|FusionCompiler|[A-Z].*Pass$",
    "LLVM to machine code": "TaskDispatcher",
    "waiting for it, linking": "JitCompiler|ThunkEmitter::Consume",
}
"""Stages of compilation, with patterns of XLA's event names. Its passes over a program
with compilation units have no names of their own."""

CONVOLUTIONS = frozenset(("convolution", "dot"))
NOT_PROGRAMS = frozenset(
    {"parameter", "constant", "get-tuple-element", "tuple", "bitcast"}
    | {"while", "call", "conditional"}
)


class Instruction(NamedTuple):
    """An instruction of XLA's program.

    Attributes:
        name: unique in the program; the profiler's name for it.
        opcode: its operation.
        scopes: JAX's scopes that it comes from, empty if unknown.
        has_groups: whether it is a grouped convolution.
        fused: the computation that a fusion holds, or `None`.
        is_unit: whether it calls a compilation unit, a pass of the package.
        runs: the computations that it runs: a unit's or a loop's.
    """

    name: str
    opcode: str
    scopes: str
    has_groups: bool
    fused: str | None
    is_unit: bool
    runs: tuple[str, ...]


def computations_of(text: str) -> dict[str, list[Instruction]]:
    """Computations of an HLO module, from its text."""
    computations: dict[str, list[Instruction]] = {}
    lines: list[Instruction] = []
    for line in text.splitlines():
        if begins := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            lines = computations.setdefault(begins[1], [])
        elif read := re.match(
            r"\s+(?:ROOT )?%?([\w.\-]+) = (?:\(.*?\)|\S+) ([a-z][\w\-]*)\(", line
        ):
            scopes = re.search(r'op_name="([^"]*)"', line)
            fused = re.search(r"calls=%?([\w.\-]+)", line)
            is_unit = "compilation_unit=" in line
            run = "to_apply" if is_unit else "body|condition"
            lines.append(
                Instruction(
                    read[1],
                    read[2],
                    scopes[1] if scopes else "",
                    "_group_count=" in line,
                    fused[1] if fused and read[2] == "fusion" else None,
                    is_unit,
                    tuple(re.findall(rf"(?:{run})=%?([\w.\-]+)", line)),
                )
            )
    return computations


def programs_of(text: str, kinds: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Instructions that XLA compiles to programs or library calls, each by name with
    its kind of layer.

    A convolution is classified by itself: XLA drops the scopes of some, and a separable
    layer has two.

    Args:
        text: text of an HLO module.
        kinds: kind of each layer, by name.
    """
    computations = computations_of(text)
    units = in_units(computations)
    dense = units & with_products(computations)
    inner = set(re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", text)) - units
    for name, instructions in computations.items():
        if name in inner:
            continue
        for each in instructions:
            if each.opcode in NOT_PROGRAMS:
                continue
            if name in units:
                yield each.name, DENSE if name in dense else DEPTHWISE
                continue
            parts = [*computations.get(each.fused or "", []), each]
            convolutions = [part for part in parts if part.opcode in CONVOLUTIONS]
            if convolutions:
                yield each.name, DEPTHWISE if convolutions[0].has_groups else DENSE
                continue
            scopes = [part.scopes for part in parts if "(" in part.scopes]
            names = re.findall(r"[\w.\-]+", scopes[-1] if scopes else "")
            yield each.name, next((kinds[n] for n in names if n in kinds), REST)


def with_products(computations: dict[str, list[Instruction]]) -> set[str]:
    """Computations with matrix products, which a unit holds if its convolution is
    dense."""
    found = {
        name
        for name, instructions in computations.items()
        if any(each.opcode == "dot" for each in instructions)
    }
    while (
        more := {
            name
            for name, instructions in computations.items()
            if any(found & {each.fused, *each.runs} for each in instructions)
        }
        - found
    ):
        found |= more
    return found


def in_units(computations: dict[str, list[Instruction]]) -> set[str]:
    """Computations of the package's passes, with the loops in them."""
    units: set[str] = set()
    calls = [i for each in computations.values() for i in each if i.is_unit]
    while calls:
        units.update(found := calls.pop().runs)
        calls += [i for name in found for i in computations[name] if i.runs]
    return units


def kind_of_layers(model: keras.Model) -> dict[str, str]:
    """Kind of each layer, by name."""
    return {
        layer.name: next(
            (kind for each, kind in KINDS.items() if isinstance(layer, each)), REST
        )
        for layer in model._flatten_layers()
    }


def own_seconds(events) -> Iterator[tuple[str, float]]:
    """Each event of a thread with its own seconds, without nested events."""
    open_ones: list[list] = []
    for start, end, name in sorted(
        ((e.start_ns, e.start_ns + e.duration_ns, e.name) for e in events),
        key=lambda event: (event[0], -event[1]),
    ):
        while open_ones and open_ones[-1][1] <= start:
            name_, _, seconds = open_ones.pop()
            yield name_, seconds
        if open_ones:
            open_ones[-1][2] -= (end - start) / 1e9
        open_ones.append([name, end, (end - start) / 1e9])
    for name, _, seconds in open_ones:
        yield name, seconds


def seconds_by_name(run, threads: str) -> collections.Counter:
    """Seconds by event name that JAX's profiler records while `run` runs, summed over
    the threads whose names match."""
    import jax

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            run()
        (path,) = Path(folder).rglob("*.xplane.pb")
        seconds: collections.Counter = collections.Counter()
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                if re.match(threads, line.name):
                    for name, own in own_seconds(line.events):
                        seconds[name] += own
    return seconds


def milliseconds(model: keras.Model, step: str, images, labels) -> dict[str, float]:
    """Milliseconds by kind of layer, for one training step or prediction."""
    import jax

    jitted, arguments = STEPS[step](model, images, labels)
    compiled = jitted.lower(*arguments).compile()
    state, *rest = jax.tree.map(jax.numpy.array, arguments)

    def run(times: int) -> None:
        nonlocal state
        outputs = None
        for _ in range(times):
            outputs = compiled(state, *rest)
            if step == "train":
                state = outputs[1]
        jax.block_until_ready(outputs)

    run(2)
    seconds = seconds_by_name(lambda: run(RUNS), EXECUTING)
    by_kind: collections.Counter = collections.Counter()
    for name, kind in programs_of(compiled.as_text(), kind_of_layers(model)):
        by_kind[kind] += 1e3 / RUNS * seconds[name]
    return rounded(by_kind)


def rounded(counter) -> dict:
    return {name: float(f"{value:.4g}") for name, value in counter.most_common()}


def compilation(model: keras.Model, images, labels) -> dict:
    """Seconds to compile a training step by stage, and its programs by kind."""
    jitted, arguments = STEPS["train"](model, images, labels)
    times = [time.perf_counter()]
    traced = jitted.trace(*arguments)
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    compiled: list = []
    events = seconds_by_name(lambda: compiled.append(lowered.compile()), COMPILING)
    stages: collections.Counter = collections.Counter()
    for name, seconds in events.items():
        stages[stage_of(name)] += seconds
    programs = collections.Counter(
        kind for _, kind in programs_of(compiled[0].as_text(), kind_of_layers(model))
    )
    return {
        "trace_s": round(times[1] - times[0], 2),
        "lower_s": round(times[2] - times[1], 2),
        "compile_s": rounded(stages),
        "programs": dict(programs.most_common()),
    }


def stage_of(event: str) -> str:
    """Stage of compilation of an XLA event."""
    return next(
        (stage for stage, pattern in STAGES.items() if re.match(pattern, event)),
        "other",
    )


def profiled(name: str) -> dict:
    """Profile of a model."""
    stock = trainable(name, IMAGE_SIZE)
    images, labels = batch_of(IMAGE_SIZE, BATCH_SIZE)
    converted = keras_diagwise.convert(stock, copy=True, verbose=0)
    environment = environment_of(converted).to_dict()
    compilations = {"stock": compilation(stock, images, labels)}
    for each in PASSES:
        model = keras_diagwise.convert(
            stock, plan={each: str(PLAN[each])}, copy=True, verbose=0
        )
        compilations[each] = compilation(model, images, labels)
    compilations["converted"] = compilation(converted, images, labels)
    return {
        "environment": environment,
        "milliseconds": {
            step: milliseconds(converted, step, images, labels) for step in STEPS
        },
        "compilations": compilations,
    }


def main() -> None:
    record_models("profile-jax", NAMES, __doc__, profiled)


if __name__ == "__main__":
    main()
