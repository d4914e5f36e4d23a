"""Where the time of a step, and the time to compile it, go on JAX.

    KERAS_BACKEND=jax python -m tuning.profile [--names MobileNetV2,…]

A line is written into tuning/results/<device>/profile-jax.jsonl for each model, and
what is there is not measured again. It holds:

- the milliseconds of the converted model's training step and prediction by kind of
  layer, those of all threads together, as JAX's profiler counts them. XLA fuses
  neighbours, and a fusion counts for the layer of its last operation; but each pass of
  ours is a compilation unit, with which nothing is fused. (Stock's is not told apart:
  XLA makes dense convolutions of depthwise ones there.)
- the programs that XLA makes of the training step, by kind of layer, and the seconds
  that tracing, lowering and each stage of compiling it take, the last those of all
  threads together: of stock, with each pass alone converted, and with all.
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
"""Of which each pass is compiled alone."""

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
"""The kinds of layers; the rest are pooling, additions, the loss and the optimizer."""

EXECUTING = "tf_XLA"
COMPILING = "tf_PjRtCompiler|tf_xla-cpu-codegen"
"""The threads that run XLA's programs, and that compile them."""

STAGES = {
    "passes over the HLO": "[a-z]|RunInvariantCheckers|PjRtCpuClient::Compile",
    "programs to LLVM": "ThunkEmitter::Emit|FusionCompiler|[A-Z].*Pass$",
    "LLVM to machine code": "TaskDispatcher",
    "waiting for it, linking": "JitCompiler|ThunkEmitter::Consume",
}
"""The stages of compilation, by XLA's names for what it does in them. Its passes over a
program that has compilation units have no names of their own."""

CONVOLUTIONS = frozenset(("convolution", "dot"))
NOT_PROGRAMS = frozenset(
    {"parameter", "constant", "get-tuple-element", "tuple", "bitcast"}
    | {"while", "call", "conditional"}
)


class Instruction(NamedTuple):
    """A line of XLA's program.

    Attributes:
        name: unique in the program; the profiler's name for it.
        opcode: what it does.
        scopes: JAX's scopes that it comes from, empty if not told.
        has_groups: whether it is a convolution in groups.
        fused: the computation that a fusion holds, or `None`.
        is_unit: whether it calls a compilation unit, a pass of ours.
        runs: the computations of programs that it runs: a unit, or a loop's.
    """

    name: str
    opcode: str
    scopes: str
    has_groups: bool
    fused: str | None
    is_unit: bool
    runs: tuple[str, ...]


def computations_of(text: str) -> dict[str, list[Instruction]]:
    """The computations of an HLO module, from its text."""
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
    """The names of the instructions that XLA makes programs or library calls of, and
    the kind of layer of each.

    A convolution tells by itself what it is: XLA drops the scopes of some, and a
    separable layer has two.

    Args:
        text: of a HLO module.
        kinds: the kind of each layer, by its name.
    """
    computations = computations_of(text)
    units = in_units(computations)
    inner = set(re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", text)) - units
    for name, instructions in computations.items():
        if name in inner:
            continue
        for each in instructions:
            if each.opcode in NOT_PROGRAMS:
                continue
            if name in units:
                yield each.name, DEPTHWISE
                continue
            parts = [*computations.get(each.fused or "", []), each]
            convolutions = [part for part in parts if part.opcode in CONVOLUTIONS]
            if convolutions:
                yield each.name, DEPTHWISE if convolutions[0].has_groups else DENSE
                continue
            scopes = [part.scopes for part in parts if "(" in part.scopes]
            names = re.findall(r"[\w.\-]+", scopes[-1] if scopes else "")
            yield each.name, next((kinds[n] for n in names if n in kinds), REST)


def in_units(computations: dict[str, list[Instruction]]) -> set[str]:
    """The computations that passes of ours are compiled as, and the loops in them."""
    units: set[str] = set()
    calls = [i for each in computations.values() for i in each if i.is_unit]
    while calls:
        units.update(found := calls.pop().runs)
        calls += [i for name in found for i in computations[name] if i.runs]
    return units


def kind_of_layers(model: keras.Model) -> dict[str, str]:
    """The kind of each layer, by its name."""
    return {
        layer.name: next(
            (kind for each, kind in KINDS.items() if isinstance(layer, each)), REST
        )
        for layer in model._flatten_layers()
    }


def own_seconds(events) -> Iterator[tuple[str, float]]:
    """Each event of a thread and its seconds, without those of the events in it."""
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
    """The seconds of each thing that JAX's profiler sees in some threads while `run`
    runs, of all these together."""
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
    """By kind of layer, for one training step or prediction."""
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
    """The seconds to make a training step ready by stage, and its programs by kind."""
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
    """The stage of compilation that an event of XLA's belongs to."""
    return next(
        (stage for stage, pattern in STAGES.items() if re.match(pattern, event)),
        "other",
    )


def profiled(name: str) -> dict:
    """What a model's profile shows."""
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
