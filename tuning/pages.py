"""Generates the documentation's pages and figures from results.

    python -m tuning.pages [--check]

Writes docs/results.md, docs/compatibility.md, docs/devices.md, docs/figures, the
notebook docs/quickstart.ipynb, and the tutorial's output into docs/tutorial.md.
`--check` writes nothing, and fails if a file would change.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from keras_diagwise import backends
from keras_diagwise.planning.dispatch import NOT_SERVED
from keras_diagwise.planning.planner import SHIPPED
from keras_diagwise.problem import PASSES, Problem
from tests.behaviours import DERIVATIVES, FILES, INFERENCE, Row
from tuning import keras_versions
from tuning.figures import (
    KINDS,
    SUITES,
    draw_all,
    problem_lines,
    ratios_of,
    suite_lines,
    words,
)
from tuning.notebook import notebook_of
from tuning.ratios import geometric_mean
from tuning.records import PACKAGES, RESULTS, Records
from tuning.summary import best_peer, is_complete, means_of, median_of, total
from tuning.tutorial import with_outputs
from tuning.workloads import DENSE_MODELS, MODELS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

WRITTEN = "<!-- Written by `python -m tuning.pages` from tuning/results. -->\n"

RIGHT, LEFT = "---:", "---"

STEPS = {
    ("jax", "model"): "JAX",
    ("tensorflow", "model_jit_compile"): "TensorFlow, jit_compile",
    ("tensorflow", "model"): "TensorFlow, graph",
    ("torch", "model"): "torch, eager",
}
"""Display names of the whole models' steps, by backend and part."""

TIME_HEADINGS = ("", "stock, ms", "converted", "speed-up", "at least", "ideal model")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    marks = [LEFT, *[RIGHT] * (len(headings) - 1)]
    lines = [headings, marks, *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def folded(title: str, text: str) -> str:
    """A collapsed note."""
    inner = "\n".join(f"    {line}" if line else "" for line in text.splitlines())
    return f'??? note "{title}"\n\n{inner}\n'


def figure(name: str, says: str) -> str:
    """A figure in the page's colours."""
    return "\n".join(
        f"![{says}](figures/{name}-{theme}.svg#only-{theme}){{ .figure }}"
        for theme in ("light", "dark")
    )


def read(name: str) -> dict:
    return json.loads((RESULTS / name).read_text())


def place(environment: dict) -> str:
    """Device and versions of an environment, as text."""
    versions = environment.get("versions") or {
        environment["backend"]: environment["backend_version"]
    }
    named = ", ".join(f"{name} {each}" for name, each in versions.items() if each)
    device = f"{environment['device_name']}, {environment['cores']} cores"
    if "vector_bits" in environment:
        device += f", {environment['vector_bits']}-bit vectors"
    return f"{device}, {named}"


def kind_of(environment: dict) -> str:
    """The kind of an environment, one of `KINDS`."""
    backend = environment["backend"]
    is_xla = environment["compiler_mode"] == "xla"
    return f"{backend}-xla" if backend == "tensorflow" and is_xla else backend


def milliseconds(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def whole_models() -> str:
    """Steps, predictions, first step and memory of a whole model."""
    rows, places, more = [], [], []
    for (backend, part), name in STEPS.items():
        results = read(f"acceptance-{backend}.json")
        figures = results[part]["figures"]
        for step, label in (("train_step", "step"), ("predict", "prediction")):
            rows.append(time_row(f"{name}: {label}", figures[step]))
        where = f"{place(results[part]['environment'])}, {results[part]['date']}"
        places.append(f"- {name}: {where}")
        if part != "model":
            continue
        for each, label, unit, digits in (
            ("first_step", "first step", "s", 1),
            ("peak_memory", "memory", "MiB", 0),
        ):
            found = results[each]["figures"]
            more.append(
                (
                    f"{name}: {label}, {unit}",
                    f"{found[f'stock_{unit}']:.{digits}f}",
                    f"{found[f'converted_{unit}']:.{digits}f}",
                    f"{found['converted_over_stock']:.2f}",
                )
            )
    steps = table(TIME_HEADINGS, rows)
    others = table(("", "stock", "converted", "ratio"), more)
    text = "\n".join(places)
    return f"""\
{figure("gain", "Time of a training step, stock and converted, on each backend")}

{steps}
A step is a training step. "At least" is the lower 95 % bound of the median ratio over
paired samples. The ideal model is the converted one with every depthwise convolution
replaced by a strided slice times a scale: the limit for perfect depthwise layers, not
for perfect layers of every kind. Where it takes longer than the converted model, the
difference shows how much such timings vary.

{others}
The first step includes tracing, compilation and one run. Memory is that of the compiled
step where the compiler reports it (JAX), and elsewhere the peak of the process.

{text}
"""


def time_row(name: str, figures: dict) -> tuple[str, ...]:
    """A row of times, below `TIME_HEADINGS`."""
    return (
        name,
        f"{figures['stock_ms']:.0f}",
        f"{figures['converted_ms']:.0f}",
        f"{figures['speedup']:.2f}×",
        f"{figures['speedup_95_percent_at_least']:.2f}×",
        f"{figures['floor_ms']:.0f}" if "floor_ms" in figures else "",
    )


def records_of(part: str) -> list[dict]:
    """Records of a part of the campaign, of every device."""
    paths = sorted(RESULTS.glob(f"*/{part}.jsonl"))
    return [line for path in paths for line in Records(path).lines]


def more_models() -> str:
    """Steps and predictions of every measured model, by backend and size."""
    memory = {
        tuple(line["key"]): f"{line['converted_over_stock']:.2f}"
        for line in records_of("peak-memory-jax")
    }
    parts = []
    for backend in PACKAGES:
        lines = records_of(f"models-{backend}")
        lines.sort(key=lambda line: (*MODELS, *DENSE_MODELS).index(line["key"][0]))
        for setting in dict.fromkeys(tuple(line["key"][1:]) for line in lines):
            of_setting = [line for line in lines if tuple(line["key"][1:]) == setting]
            size, batch, policy = setting
            known = memory if backend == "jax" else {}
            steps = table(
                TIME_HEADINGS,
                (time_row(line["key"][0], line["train"]) for line in of_setting),
            )
            others = table(
                ("", "prediction", "first step", "memory"),
                (
                    (*other_cells(line), known.get(tuple(line["key"][:3]), ""))
                    for line in of_setting
                ),
            )
            parts.append(f"""\
**{KINDS[backend]}**, {size}×{size} pixels, batch {batch}, {policy}; \
{place(lines[0]["environment"])}:

{steps}
{others}""")
    return "\n".join(parts)


def other_cells(line: dict) -> tuple[str, ...]:
    """A model, the gain of its prediction and the cost of its first step."""
    first = line["first_step_s"]
    return (
        line["key"][0],
        f"{line['predict']['speedup']:.2f}×",
        f"{first['converted'] / first['stock']:.2f}",
    )


def where_time_goes() -> str:
    """Time of the converted model's layers by kind, and of its compilation by stage."""
    parts = []
    for line in records_of("profile-jax"):
        steps = line["milliseconds"]
        totals = {step: sum(of_step.values()) for step, of_step in steps.items()}
        rows = []
        for kind in steps["train"]:
            taken = {step: steps[step].get(kind, 0) for step in ("train", "predict")}
            shares = (
                (f"{each:.1f}", f"{each / totals[step]:.0%}")
                for step, each in taken.items()
            )
            rows.append((kind, *itertools.chain.from_iterable(shares)))
        kinds = table(("", "step, ms", "share", "prediction, ms", "share"), rows)
        compilations = line["compilations"]
        found = list(compilations.values())
        rows = [
            ("tracing", *(f"{each['trace_s']:.1f}" for each in found)),
            ("lowering", *(f"{each['lower_s']:.1f}" for each in found)),
        ]
        rows += [
            (stage, *(f"{each['compile_s'][stage]:.1f}" for each in found))
            for stage in found[0]["compile_s"]
        ]
        programs = [each["programs"] for each in found]
        depthwise = "depthwise convolutions"
        rows += [
            ("programs", *(str(sum(each.values())) for each in programs)),
            (f"for {depthwise}", *(str(each[depthwise]) for each in programs)),
        ]
        stages = table(("", *map(words, compilations)), rows)
        name, size, batch = line["key"]
        parts.append(f"""\
**{name}**, {size}×{size} pixels, batch {batch}; {place(line["environment"])}:

{kinds}
{stages}""")
    return "\n".join(parts)


def against_peers() -> str:
    """JAX converted against the fastest stock backend."""
    lines = []
    for record in records_of("peers"):
        taken, fastest = record["milliseconds"], record["fastest_stock"]
        lines.append(
            f"- {record['key'][0]}: {taken['jax converted']:.0f} ms against "
            f"{taken[fastest]:.0f} ms on {KINDS[fastest.partition(' ')[0]]}, "
            f"a ratio of {record['jax_converted_over_it']:.2f}."
        )
    return "\n".join(lines)


def kept_memory() -> str:
    """Gain of a step if the C library keeps freed memory."""
    rows = []
    for line in records_of("kept-memory"):
        kind, name, size, batch = line["key"]
        least, most = line["95_percent_bounds"]
        rows.append(
            (
                f"{name}, {size}×{size} pixels, batch {batch}, {KINDS[kind]}",
                f"{line['as_it_is_ms']:.0f}",
                f"{line['kept_ms']:.0f}",
                f"{line['kept_over_as_it_is']:.2f}",
                f"{least:.2f}–{most:.2f}",
            )
        )
    return table(("step, ms", "default", "kept", "ratio", "95 % bounds"), rows)


def large_tensors() -> str:
    """Plans over the roofline, for tensors larger than any cache."""
    rows = []
    for kept, note in ((False, ""), (True, ", freed memory kept")):
        lines = [
            line
            for line in records_of("suite-large-*")
            if line.get("keeps_memory", False) is kept
        ]
        for kind, title in KINDS.items():
            means = means_of(lines, kind)
            if means:
                near = (means[f"{name} over roofline, large"] for name in PASSES)
                rows.append(
                    (
                        f"{title} ({means['problems']} problems){note}",
                        *(f"{each:.2f}×" for each in near),
                        f"{means['native over plan']:.3g}×",
                    )
                )
    return table(("", *map(words, PASSES), "native over plan"), rows)


def by_model() -> str:
    """Gain of the layers of each model."""
    kinds = [kind for kind in KINDS if ratios_of(kind)]
    ratios = {kind: ratios_of(kind) for kind in kinds}
    rows = [
        (
            f"{name} ({len(ratios[kinds[0]][name])})",
            *(f"{geometric_mean(ratios[kind][name]):.3g}×" for kind in kinds),
        )
        for name in ratios[kinds[0]]
    ]
    means = {kind: means_of(problem_lines(kind), kind) for kind in kinds}
    count = str(means[kinds[0]]["problems"])
    rows.append(
        (
            f"all problems ({count})",
            *(f"{means[kind]['native over plan']:.3g}×" for kind in kinds),
        )
    )
    rows.append(
        ("least gain", *(f"{means[kind]['least of it']:.3g}×" for kind in kinds))
    )
    peers = against_best_peers()
    over = geometric_mean([times for times, _ in peers.values()])
    return f"""\
{figure("models", "Gain of the depthwise layers of each model, by backend")}

Time of `native` over that of the tuned plan: the geometric mean over the depthwise
problems of a model, each with its three passes. The bars in the figure span the
smallest to the largest gain.

{table(("model (problems)", *(KINDS[kind] for kind in kinds)), rows)}
On JAX the tuned plan takes {over:.2g} of the time of the fastest other backend's
`native` on the same problem (geometric mean over {len(peers)} problems). The backends
alternated in each run; of several runs, the least favourable counts.

{behind_peers(peers)}
{behind_native()}"""


def against_best_peers() -> dict[Problem, tuple[float, dict]]:
    """JAX's plan over the fastest other backend's native for each problem, with its
    record; from the run in which the ratio is largest."""
    found = {}
    for line in suite_lines():
        ours, peer = line["kinds"].get("jax", {}), best_peer(line, "jax")
        if peer is None or not is_complete(ours):
            continue
        problem = Problem.from_dict(line["key"])
        times = total(ours, ours["plan"]) / peer[1]
        if times > found.get(problem, (0, None))[0]:
            found[problem] = times, line
    return found


def behind_peers(peers: dict[Problem, tuple[float, dict]]) -> str:
    """Problems that another backend's native computes faster than JAX's plan, and the
    pass that loses most."""
    rows = []
    for problem, (times, line) in peers.items():
        if times <= 1:
            continue
        peer = best_peer(line, "jax")[0]
        lost = most_lost(line["kinds"]["jax"], line["kinds"][peer])
        rows.append((str(problem), f"{times:.2f}", KINDS[peer], lost))
    if not rows:
        return ""
    headings = ("slower than the fastest", "ratio", "fastest", "largest loss in")
    return table(headings, rows)


NOISE = 1.03
"""Ratio to native up to which a plan does not count as slower."""


def behind_native() -> str:
    """Problems that a backend's own native computes faster than its plan."""
    rows = []
    for kind, title in KINDS.items():
        for line in problem_lines(kind):
            found = line["kinds"][kind]
            times = total(found, found["plan"]) / total(found)
            if times > NOISE:
                problem = str(Problem.from_dict(line["key"]))
                rows.append((problem, f"{times:.2f}", title, most_lost(found, found)))
    if not rows:
        return ""
    headings = ("slower than `native`", "ratio", "on", "largest loss in")
    return f"""\
{table(headings, rows)}
The tuner, which runs in a separate process, had measured these plans as faster. A small
gain can depend on how the C library manages memory: where every page of a tensor
[faults again](#growth-with-batch-channels-pixels-and-kernel) on each call, the
algorithm that writes more memory loses.
"""


def most_lost(ours: dict, theirs: dict) -> str:
    """The pass in which a plan loses most against native, its algorithm, and the times
    of both."""
    lost = {
        name: (
            median_of(ours, name, ours["plan"][name]),
            median_of(theirs, name, "native"),
        )
        for name in PASSES
    }
    worst = max(lost, key=lambda name: lost[name][0] - lost[name][1])
    here, there = map(milliseconds, lost[worst])
    return f"{words(worst)}, `{ours['plan'][worst]}`: {here} ms against {there}"


def against_the_roofline() -> str:
    """Each pass against the roofline, and all problems."""
    parts = []
    for kind, name in KINDS.items():
        found = problem_lines(kind)
        if not found:
            continue
        where = place(found[0]["environments"][kind])
        rows = [row_of(line, kind) for line in found]
        headings = ("problem", "native ms", "plan ms", "gain", "plan", "over roofline")
        parts.append(f"""\
### {name}

{figure(f"roofline-{kind}", f"Time of each pass against the roofline, {name}")}

{where}.

{folded(f"All {len(rows)} problems", table(headings, rows))}""")
    return "\n".join(parts)


def row_of(line: dict, kind: str) -> tuple[str, ...]:
    """A row for a problem, its three passes together."""
    found = line["kinds"][kind]
    native, planned = total(found), total(found, found["plan"])
    plan = list(dict.fromkeys(found["plan"][name] for name in PASSES))
    named = plan if len(plan) == 1 else [found["plan"][name] for name in PASSES]
    return (
        str(Problem.from_dict(line["key"])),
        milliseconds(native),
        milliseconds(planned),
        f"{native / planned:.2f}×",
        ", ".join(f"`{each}`" for each in named),
        f"{planned / (3 * found['least']):.1f}×",
    )


def partition_sizes() -> str:
    """Time against partition size, the curves that the tuner searches."""
    parts = []
    for path in sorted(RESULTS.glob("partition-sizes-*.json")):
        result = json.loads(path.read_text())
        environment = result["environment"]
        problem = Problem.from_dict(result["problem"])
        title = KINDS[kind_of(environment)]
        load = (
            f" The machine's load average was {result['load_average']}: other work was "
            "running, so the ratios are more reliable than the times."
            if result["load_average"] > environment["cores"]
            else ""
        )
        parts.append(f"""\
### {title}

{figure(path.stem, f"Time of each pass against the partition size, {title}")}

{problem}. {place(environment)}, {result["date"]}.{load}
""")
    return "\n".join(parts)


def growth() -> str:
    """Time against each size of a problem."""
    parts = []
    for path in sorted(RESULTS.glob("growth-*.json")):
        result = json.loads(path.read_text())
        environment = result["environment"]
        says = "Time of each pass against the size of a problem"
        where = f"{place(environment)}, {environment['compiler_mode']}"
        parts.append(f"{figure(path.stem, says)}\n\n{where}.\n")
    return "\n".join(parts)


def leave_one_out() -> str:
    """Regret of the nearest problem's decision."""
    rows = []
    for path in sorted(RESULTS.glob("leave-one-out-*.json")):
        result = json.loads(path.read_text())
        environment = result["environment"]
        rows.append(
            (
                KINDS[kind_of(environment)]
                + (", dense" if "dense" in path.name else ""),
                str(result["problems"]),
                str(result["not_native"]),
                f"{result['regret_geometric_mean']:.2f}",
                f"{result['regret_worst']:.2f}",
                f"{result['slower_than_native_95_percent_at_most']:.2f}",
            )
        )
    headings = (
        "",
        "problems",
        "not native",
        "over the best",
        "worst case",
        "over native, worst case",
    )
    return table(headings, rows)


def quick_tuning() -> str:
    """Cost of the tuner's pruning, and of interruptions."""
    rows = []
    for path in sorted(RESULTS.glob("exhaustive-*.json")):
        result = json.loads(path.read_text())
        environment = result["environment"]
        rows.append(
            (
                f"{KINDS[kind_of(environment)]}: {result['workload']}",
                f"{result['seconds']['quick']:.0f} s",
                f"{result['seconds']['exhaustive']:.0f} s",
                f"{result['total_of_chosen_over_best']:.3f}",
            )
        )
    quick = table(
        ("", "tuner", "every candidate", "time of its choice over the best"), rows
    )
    kills = read("endurance-jax.json")["kills"]["figures"]
    budget = read("endurance-jax.json")["budget"]["figures"]
    return f"""\
{quick}
A tuning run that was killed {kills["kills"]} times at random moments ended with
{kills["passes_decided_at_the_end"]} of {kills["passes"]} passes decided,
{kills["finished_passes_lost"]} lost, and {len(kills["unreadable"])} unreadable files.
With a budget of {budget["budget_s"]:.0f} s, tuning took at most
{budget["most_over_budget"]:.3f} times the budget.
"""


def gpu_programs() -> str:
    """Machine code of `triton` for an H100, on the problems that a GPU is judged by."""
    result = read("gpu-programs.json")
    rows = [
        (
            row["problem"],
            words(row["pass"]),
            f"`{row['candidate']}`",
            str(row["registers"]),
            " and ".join(map(str, row["widths"])),
            f"{row['instructions']:g}",
        )
        for row in result["headlines"]
        if ", float16" not in row["problem"]  # within a tenth of bfloat16's
    ]
    columns = ("", "pass", "", "registers", "bytes per load", "instructions")
    costs = [each for each in read("gpu-costs.json").values() if isinstance(each, dict)]
    error = max(each["mean_error_held_out"] for each in costs)
    fitted = sum(each["programs"] for each in costs)
    capabilities = [f"sm_{each}" for each in result["capabilities"]]
    return f"""\
Triton {result["triton"]} compiled {result["programs"]} programs for
{result["problems"]} problems and {", ".join(capabilities)}, without a GPU. We inspected
them: {result["programs_with_faults"]} have register spills, loads narrower than
necessary, or too many registers for two blocks per multiprocessor. The table lists the
sm_90 programs that execute the fewest instructions per result (for a kernel gradient,
per output multiplied with all its taps). An H100 can execute 79 instructions while it
moves the bytes of one result in float32, and 39 in bfloat16. The tuner estimates the
instructions of a program from its layout. Fitted to one half of {fitted} programs, the
estimate has a mean error of {100 * error:.0f} % on the other half, in the worst pass.

{table(columns, rows)}"""


def results() -> str:
    """The page of results."""
    devices = sorted(path.parent.name for path in SUITES)
    return f"""\
{WRITTEN}
# Results

A single command, `python -m tuning.pages`, makes every number and figure here from
`tuning/results`. Measured so far: {", ".join(f"`{each}`" for each in devices)}.
**No GPU has been measured yet.** All results are for the named device only.

In TensorFlow's graph mode and torch's eager mode, `native` on a CPU is oneDNN's or
TensorFlow's own kernel. It is good, and the right plan is usually to leave it alone:
expect a gain of 1.0× from a converted model there.

## A whole model

MobileNetV2, 96×96 pixels, batch 16, float32, stock and converted alternating in one
process.

{whole_models()}
## More models

Measured in the same way, each model in a separate run. "First step" and "memory" are
ratios of converted to stock: the time to trace, compile and run the step once, and the
memory of the compiled step as XLA reports it.

{more_models()}
The converted training step on JAX against the fastest stock step of any backend on this
machine, in alternating separate processes:

{against_peers()}

### Where the time goes

Time of the converted model by kind of layer, from JAX's profiler, in milliseconds
summed over all threads. Depthwise convolutions no longer dominate the step, so a whole
model gains less than its layers. XLA fuses neighbours, and a fusion counts towards the
layer of its last operation; but each pass of a convolution that runs by a plan is a
[compilation unit](how-it-works.md#how-a-call-travels), which is never fused with
others. The ideal model shows how much faster a step or a prediction could become
through its depthwise layers alone. In these runs everything besides convolutions was
left as it is: normalization, activations, and `Dense` layers over pixels, such as
ConvNeXt's, whose kernel gradient XLA computes more slowly than the product of flattened
pixels.

The second table of each model lists the seconds that JAX and XLA take to prepare the
training step, summed over all threads: for the stock model, with one pass of every
depthwise convolution converted, and with all three.

{where_time_goes()}
One XLA option shortens compilation further:
`XLA_FLAGS=--xla_cpu_use_fusion_emitters=false`. It affects how the whole model is
compiled, so we leave it to you. JAX's
[compilation cache](https://docs.jax.dev/en/latest/persistent_compilation_cache.html)
saves later processes part of the compilation.

### Kept memory

A training step of the converted model, by default and with freed memory kept in huge
pages, in alternating separate processes. `keras-diagwise doctor` measures the gain on
your machine, and prints the line that enables it if there is one.

{kept_memory()}
## The layers of the models

{by_model()}
## Each pass against the roofline

The roofline of a pass is the larger of two times: the time to copy its least
bytes, and the time of its useful arithmetic at the rate of a dense matrix product. Both
are measured on the device. A point on the dashed line is as fast as possible.

{against_the_roofline()}
### Tensors larger than the last-level cache

Time over the roofline for each pass, in geometric mean:

{large_tensors()}
The C library returns large buffers to the system as soon as they are freed. The
roofline is measured with copies that page-fault like the passes do. With
`MALLOC_MMAP_THRESHOLD_` and `MALLOC_TRIM_THRESHOLD_` set, copies take a quarter of the
time; the passes gain less, since most of their time is arithmetic.

## Partition size

This is the curve that the tuner searches: a small partition size makes many small
convolutions, a large one multiplies many zeros. A ring marks the fastest size.

{partition_sizes()}
## Growth with batch, channels, pixels and kernel

{growth()}
On Linux the curves jump where a tensor exceeds 32 MB: the C library returns such memory
to the system at once, and every page faults again on the next call. To avoid it, set
`MALLOC_MMAP_THRESHOLD_` and `MALLOC_TRIM_THRESHOLD_` to a few GiB before Python starts.

## The nearest problem's decision

For a problem that was not measured, the [planner](tuning.md#sources-of-a-plan) uses the
nearest one's decision. Here each measured problem was left out in turn and planned from
the others. "Over the best" is the time of the resulting plan over that of the best
measured plan, in geometric mean and in the worst case; "over native" is its time over
that of `native`.

{leave_one_out()}
## The tuner

{quick_tuning()}
## The programs of `triton`

{gpu_programs()}
## Reproducing the measurements

```shell
nox -s acceptance          # the whole model
nox -s benchmark           # the suite, problem by problem
python -m tuning.peers     # a model on every backend
python -m tuning.peak_memory
python -m tuning.profile    # where the time goes
nox -s gpu_compile          # the programs of `triton`
nox -s ship                # the decisions that come with the package
python -m tuning.partition_sizes
python -m tuning.growth
python -m tuning.pages     # this page
```
"""


def pinned() -> dict[str, str]:
    """Versions in constraints.txt, by package."""
    text = (ROOT / "constraints.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)==([\w.+]+)(?!.*<)", text, re.MULTILINE))


def covered(part: str) -> dict[str, dict[str, dict]]:
    """Figures of a coverage run, by backend and model."""
    names = {backend: RESULTS / f"{part}-{backend}.json" for backend in PACKAGES}
    return {
        backend: read(path.name)["models"] if path.exists() else {}
        for backend, path in names.items()
    }


def coverage_rows(part: str) -> list[tuple[str, ...]]:
    """A row for each model: its layers, and its largest error on each backend."""
    found = covered(part)
    rows = []
    for name in sorted({each for models in found.values() for each in models}):
        known = [models[name] for models in found.values() if name in models]
        cells = (coverage_cell(models.get(name)) for models in found.values())
        layers = next(each["layers"] for each in known if "layers" in each)
        rows.append((name, str(layers), *cells))
    return rows


def coverage_cell(figures: dict | None) -> str:
    """The larger error of outputs and weights, or why there is none."""
    if figures is None:
        return "not run"
    failure = figures.get("stock_failure", "").partition(":")[0]
    if "outputs_error" not in figures:
        return f"stock: {failure}"
    error = f"{max(figures['outputs_error'], figures.get('step_error', 0)):.0e}"
    if not figures["is_right"]:
        return f"**differs** {error}"
    return f"{error}, stock's step: {failure}" if failure else error


def shipped_count(backend: str, mode: str) -> int:
    """Number of shipped problems of a backend and mode."""
    found = (
        problems
        for environment, problems in shipped()
        if (environment["backend"], environment["compiler_mode"]) == (backend, mode)
    )
    return len(set(itertools.chain.from_iterable(found)))


def shipped() -> Iterator[tuple[dict, list[Problem]]]:
    """Environments of the shipped decisions, and their problems."""
    for path in sorted(SHIPPED.glob("*.json")):
        for each in json.loads(path.read_text())["environments"]:
            problems = [Problem.from_dict(one["problem"]) for one in each["decisions"]]
            yield each["environment"], problems


MODES = (
    ("jax", "xla", "JAX", "the default"),
    ("tensorflow", "graph", "TensorFlow, graph", "the default without a GPU"),
    ("tensorflow", "xla", "TensorFlow, XLA", "`jit_compile=True`"),
    ("tensorflow", "eager", "TensorFlow, eager", "`run_eagerly=True`"),
    ("torch", "eager", "torch, eager", "the default"),
    ("torch", "inductor", "torch, `torch.compile`", "`jit_compile=True`"),
)


def mode_rows() -> list[tuple[str, ...]]:
    """Behaviour of the plan `"auto"` in each compiler mode before any tuning."""
    rows = []
    for backend, mode, name, when in MODES:
        count = shipped_count(backend, mode)
        if mode in NOT_SERVED:
            does = f"{NOT_SERVED[mode]}, always"
        elif count:
            does = f"shipped decisions for {count} problems on a CPU"
        else:
            does = "`native`, until you tune"
        rows.append((name, when, does))
    names = ", ".join(backends.INFERENCE_ONLY)
    rows.append((names, "prediction only", f"{NOT_SERVED['inference']}, always"))
    return rows


def devices() -> str:
    """The page of devices with shipped decisions."""
    rows = []
    for here, problems in shipped():
        dense = sum(problem.is_dense for problem in problems)
        depthwise = sum(problem.is_depthwise for problem in problems)
        rows.append(
            (
                f"{KINDS[kind_of(here)]}: {place(here)}",
                str(depthwise),
                str(len(problems) - depthwise - dense),
                str(dense),
            )
        )
    headings = ("device", "depthwise", "grouped", "dense")
    return f"""\
# Devices

{WRITTEN}
Decisions shipped with the package, as the number of problems of each kind:

{table(headings, rows)}
On another device of the same kind, they are used from the source `other device` if the
gain was large enough to be likely there too. Decisions from a device with the same
vector width come first ([sources of a plan](tuning.md#sources-of-a-plan)). To be sure,
tune on the device itself. Nothing has been measured on GPUs yet.

## Contribute your device

```shell
keras-diagwise tune model.keras --batch-size 32
keras-diagwise decisions contribute decisions.json
```

These commands measure on your device, write the results to a file, and print the text
of an issue to attach it to. Both name the device, its cores, versions, and the shapes
of layers: nothing else about your model, and nothing about you.
"""


def behaviour_table(rows: dict[str, Row]) -> str:
    """A table of behaviours by backend."""
    names = next(iter(rows.values()))
    lines = [(name, *map(str, cells.values())) for name, cells in rows.items()]
    return text_table(("", *names), lines)


NEEDED = ('requires-python = "', '"keras')
"""Text before a version in pyproject.toml."""


KERAS_HEADINGS = ("Keras", "backend", "Python", "passed", "failed", "skipped")


def keras_rows() -> list[tuple]:
    """Test outcomes under each version of Keras."""
    return [
        (
            run["keras"],
            f"{PACKAGES[run['backend']]} {run['version']}",
            *(str(run[each]) for each in ("python", "passed", "failed", "skipped")),
        )
        for run in read(keras_versions.RESULT)["runs"]
    ]


def compatibility() -> str:
    """The page of compatibility."""
    project = (ROOT / "pyproject.toml").read_text()
    python, keras = (re.search(f'{each}(>=.*?)"', project)[1] for each in NEEDED)
    checks = (ROOT / ".github" / "workflows" / "checks.yml").read_text()
    pythons = ", ".join(re.findall(r'python-version: "([\d.]+)"', checks))
    versions = ", ".join(f"{name} {pinned()[name]}" for name in PACKAGES.values())
    headings = ("model", "layers", *PACKAGES)
    return f"""\
{WRITTEN}
# Compatibility

| | needed | tested |
| --- | --- | --- |
| Python | {python} | {pythons} |
| Keras | {keras} | {pinned()["keras"]} |

The tested versions are those in `constraints.txt`, on which every test runs. Each
backend is tested in an environment where no other is installed. `nox -s pythons` tests
the installed package on Python 3.10, 3.12 and 3.13. For 3.14 there are wheels of all
that it needs but TensorFlow; nothing has run there yet. `nox -s newest` runs the tests
below on the newest releases.

## Versions of Keras

`nox -s matrix` runs the tests of layers, `convert`, files, `pin` and `tune` under each
version. Skipped tests are for other backends, for exports whose packages were not
installed, and for features that stock Keras lacks in that version.

{text_table(KERAS_HEADINGS, keras_rows())}
The package can't do what an older Keras can't: in the tables below, such cells name the
first Keras that can. Keras 3.13 requires Python 3.11, and TensorFlow 2.21 requires
Keras 3.12, so use TensorFlow 2.20 with Keras 3.10 and 3.11. On Python 3.10 pip installs
Keras 3.12 and JAX 0.6.2. Older versions of Keras can't read files saved by Keras 3.15.

## Models

With {versions}.

Each model was built in float64 with random weights and small images, and its
convolutions were converted with the plan `"direct"`, which is never the stock
operation. The figures are the largest error of the outputs, and of the weights after a
training step, against the stock model and relative to its norm; at most 1e-9 counts as
equal. All layers must be converted, and the reverted model must be bit-equal.
`python -m tuning.coverage` makes these figures; models it has not covered yet are "not
run". Where the stock model itself failed on the machine used, with 24 GiB of memory,
the cell gives the reason: XLA's gradients of wide depthwise kernels take up to 41 GB.
If the training step failed, the figure is for the outputs, and the converted model did
train.

Models in `keras.applications`:

{table(headings, coverage_rows("coverage"))}
Small versions of KerasHub's image backbones:

{table(headings, coverage_rows("coverage-keras-hub"))}
## Files and exports

For converted models, under any plan; `tests/models/test_files.py` checks each cell,
including that stock Keras can't. Exported models run without the package, and with the
stock operations under `"auto"`. The modules after "with" must be installed;
`nox -s exports` tests with them.

{behaviour_table(FILES)}
## Derivatives and transformations

For functions and layers, under any plan, with results equal to stock's;
`tests/test_transformations.py` checks each.

{behaviour_table(DERIVATIVES)}
## Backends without training

`tests/test_inference_only.py` checks each.

{behaviour_table(INFERENCE)}
## Compiler modes

Behaviour of the plan `"auto"` before any tuning:

{text_table(("", "when", "what runs"), mode_rows())}
A plan set by hand runs in every mode except those marked "always". In TensorFlow's
graph and eager modes, a grouped convolution runs as dense blocks instead of `native`,
which Keras compiles separately there.
"""


def text_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of text."""
    return table(headings, rows).replace(RIGHT, LEFT)


def tutorial() -> str:
    """The tutorial with its output."""
    outputs = read("tutorial-jax-xla.json")["outputs"]
    return with_outputs((DOCS / "tutorial.md").read_text(), outputs)


def quick_start() -> str:
    """The quick start as a notebook."""
    return notebook_of(DOCS / "quickstart.md")


PAGES = {
    "results.md": results,
    "compatibility.md": compatibility,
    "devices.md": devices,
    "tutorial.md": tutorial,
    "quickstart.ipynb": quick_start,
}


def write_all(folder: Path) -> None:
    """Writes the pages and the figures into a folder."""
    draw_all(folder / "figures")
    for name, page in PAGES.items():
        (folder / name).write_text(page())


def differences(made: Path, kept: Path) -> list[str]:
    """Files that differ from what would be generated."""
    names = [*PAGES, *(f"figures/{path.name}" for path in (made / "figures").iterdir())]
    left = {f"figures/{path.name}" for path in (kept / "figures").glob("*")}
    different = [
        name
        for name in names
        if not (kept / name).exists()
        or (kept / name).read_bytes() != (made / name).read_bytes()
    ]
    return sorted(different) + sorted(left - set(names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        write_all(DOCS)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_all(Path(folder))
        different = differences(Path(folder), DOCS)
    if different:
        sys.exit(f"Not as `python -m tuning.pages` makes them: {', '.join(different)}")


if __name__ == "__main__":
    main()
