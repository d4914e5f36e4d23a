"""Data of the page of results."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator

from docs.build import suite
from docs.build.measurements import (
    KINDS,
    WHOLE_MODEL,
    kind_of,
    place,
    read,
    records_of,
    results_of,
    words,
)
from keras_diagwise.durations import milliseconds
from keras_diagwise.problem import PASSES, Problem
from tuning import peers
from tuning.layers import ratios_by_kernel
from tuning.ratios import geometric_mean, lower_bound, upper_bound
from tuning.records import PACKAGES
from tuning.summary import means_of, total
from tuning.workloads import DENSE_MODELS, MODELS


def values() -> dict:
    """The values of the template."""
    return {
        "devices": sorted(path.parent.name for path in suite.SUITES),
        "whole_model": whole_model(),
        "settings": more_models(),
        "peers": against_peers(),
        "steps_a_turn": peers.STEPS,
        "profiles": profiles(),
        "huge_pages": huge_pages(),
        "layers": by_model(),
        "against_torch": against_torch(),
        "rooflines": rooflines(),
        "passes": [*map(words, PASSES)],
        "large_tensors": large_tensors(),
        "partition_sizes": partition_sizes(),
        "growths": growths(),
        "regrets": regrets(),
        "quick": quick_tuning(),
        "endurance": endurance(),
        "gpu": gpu_programs(),
    }


def whole_model() -> dict:
    """Steps, predictions, first step and memory of a whole model."""
    steps, costs, places = [], [], {}
    for kind, (file, part) in WHOLE_MODEL.items():
        name, found = KINDS[kind], read(file)
        figures, environment = found[part]["figures"], found[part]["environment"]
        steps.append(time_cells(f"{name}: step", figures["train_step"]))
        steps.append(time_cells(f"{name}: prediction", figures["predict"]))
        places[name] = f"{place(environment)}, {found[part]['date']}"
        if part == "model":
            first, memory = found["first_step"], found["peak_memory"]
            costs.append(cost_cells(f"{name}: first step", first, "s", 1))
            costs.append(cost_cells(f"{name}: memory", memory, "MiB", 0))
    return {"steps": steps, "costs": costs, "places": places}


def time_cells(name: str, figures: dict) -> tuple[str, ...]:
    """Times of stock and converted, the speed-up, and the ideal model's time."""
    return (
        name,
        f"{figures['stock_ms']:.0f}",
        f"{figures['converted_ms']:.0f}",
        f"{figures['speedup']:.2f}×",
        f"{figures['speedup_95_percent_at_least']:.2f}×",
        f"{figures['floor_ms']:.0f}" if "floor_ms" in figures else "",
    )


def cost_cells(name: str, measured: dict, unit: str, digits: int) -> tuple[str, ...]:
    """A cost of stock and converted, and its ratio."""
    figures = measured["figures"]
    return (
        f"{name}, {unit}",
        f"{figures[f'stock_{unit}']:.{digits}f}",
        f"{figures[f'converted_{unit}']:.{digits}f}",
        f"{figures['converted_over_stock']:.2f}",
    )


def more_models() -> Iterator[dict]:
    """Steps and predictions of every measured model, by backend and setting."""
    for backend, part in itertools.product(PACKAGES, ("", "-huge-pages")):
        lines = records_of(f"models-{backend}{part}")
        lines.sort(key=lambda line: (*MODELS, *DENSE_MODELS).index(line["key"][0]))
        memory = memory_ratios() if backend == "jax" and not part else {}
        for setting in dict.fromkeys(tuple(line["key"][1:]) for line in lines):
            group = [line for line in lines if tuple(line["key"][1:]) == setting]
            yield {
                "backend": KINDS[backend],
                "setting": setting,
                "in_huge_pages": bool(part),
                "place": place(lines[0]["environment"]),
                "steps": [time_cells(line["key"][0], line["train"]) for line in group],
                "others": [other_cells(line, memory) for line in group],
            }


def memory_ratios() -> dict[tuple, str]:
    """Memory of a step on JAX, converted over stock, by model, size and batch."""
    return {
        tuple(line["key"]): f"{line['converted_over_stock']:.2f}"
        for line in records_of("peak-memory-jax")
    }


def other_cells(line: dict, memory: dict[tuple, str]) -> tuple[str, ...]:
    """A model, the gain of its prediction, and the costs of its step."""
    first = line["first_step_s"]
    return (
        line["key"][0],
        f"{line['predict']['speedup']:.2f}×",
        f"{first['converted'] / first['stock']:.2f}",
        memory.get(tuple(line["key"][:3]), ""),
    )


def against_peers() -> Iterator[tuple[str, ...]]:
    """JAX converted against the fastest stock backend and plain torch, by default and
    all of them in huge pages."""
    for record in records_of("peers"):
        turns = turns_of(record)
        for memory in (peers.DEFAULT, peers.HUGE_PAGES):
            ours = turns["jax", True, memory]
            plain = turns.get((peers.PLAIN, False, memory))
            stock = {
                kind: turns[kind, False, memory]
                for kind in KINDS
                if (kind, False, memory) in turns
            }
            fastest = min(stock, key=lambda kind: statistics.median(stock[kind]))
            yield (
                record["key"][0],
                memory,
                f"{statistics.median(ours):.0f}",
                f"{statistics.median(stock[fastest]):.0f} ({KINDS[fastest]})",
                ratio_of_turns(ours, stock[fastest]),
                f"{statistics.median(plain):.0f}" if plain else "",
                ratio_of_turns(ours, plain) if plain else "",
            )


def turns_of(record: dict) -> dict[tuple[str, bool, str], list[float]]:
    """Milliseconds of a step in each turn, by kind, whether the model is converted, and
    memory."""
    return {
        (each["kind"], each["converted"], each["memory"]): each["of_turns"]
        for each in record["milliseconds"]
    }


def ratio_of_turns(ours: list[float], theirs: list[float]) -> str:
    """The median ratio of two processes' turns, and its 95 % bounds."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    bounds = f"{lower_bound(ratios):.2f}–{upper_bound(ratios):.2f}"
    return f"{statistics.median(ratios):.2f} ({bounds})"


def profiles() -> Iterator[dict]:
    """Time of the converted model's layers by kind, and of its compilation by stage."""
    for line in records_of("profile-jax"):
        steps = line["milliseconds"]
        name, size, batch = line["key"]
        yield {
            "name": name,
            "size": size,
            "batch": batch,
            "place": place(line["environment"]),
            "kinds": layer_rows(steps["train"], steps["predict"]),
            "programs": [*map(words, line["compilations"])],
            "stages": stage_rows([*line["compilations"].values()]),
        }


def layer_rows(train: dict, predict: dict) -> Iterator[tuple[str, ...]]:
    """Time and share of each kind of layer in a step and in a prediction."""
    totals = sum(train.values()), sum(predict.values())
    for kind, step in train.items():
        prediction = predict.get(kind, 0)
        shares = f"{step / totals[0]:.0%}", f"{prediction / totals[1]:.0%}"
        yield kind, f"{step:.1f}", shares[0], f"{prediction:.1f}", shares[1]


def stage_rows(compilations: list[dict]) -> Iterator[tuple[str, ...]]:
    """Seconds of each stage of each compilation, then the number of programs."""
    depthwise = "depthwise convolutions"
    programs = [each["programs"] for each in compilations]
    seconds = [
        {"tracing": each["trace_s"], "lowering": each["lower_s"], **each["compile_s"]}
        for each in compilations
    ]
    for stage in seconds[0]:
        yield stage, *(f"{each[stage]:.1f}" for each in seconds)
    yield "programs", *(str(sum(each.values())) for each in programs)
    yield f"for {depthwise}", *(str(each[depthwise]) for each in programs)


def huge_pages() -> Iterator[tuple[str, ...]]:
    """A converted step by default and in huge pages, and their ratio."""
    for record in records_of("peers"):
        turns = turns_of(record)
        for kind, name in KINDS.items():
            if (kind, True, peers.HUGE_PAGES) in turns:
                default = turns[kind, True, peers.DEFAULT]
                huge = turns[kind, True, peers.HUGE_PAGES]
                yield (
                    f"{record['key'][0]}, {name}",
                    f"{statistics.median(default):.0f}",
                    f"{statistics.median(huge):.0f}",
                    ratio_of_turns(huge, default),
                )


def against_torch() -> Iterator[tuple[str, ...]]:
    """Depthwise layers by JAX's plan over those of plain torch, by kernel."""
    for kernel, ratios in ratios_by_kernel(records_of("layers-against-torch")):
        yield kernel, *(f"{ratio:.2f}" for ratio in ratios)


def by_model() -> dict:
    """Gain of the layers of each model, and problems that a plan makes slower."""
    ratios = {kind: found for kind in KINDS if (found := suite.ratios_of(kind))}
    means = [means_of(suite.problem_lines(kind), kind) for kind in ratios]
    counts = {name: len(each) for name, each in next(iter(ratios.values())).items()}
    rows = [
        (f"{name} ({count})", [geometric_mean(each[name]) for each in ratios.values()])
        for name, count in counts.items()
    ]
    over_native = [each["native over plan"] for each in means]
    rows.append((f"all problems ({means[0]['problems']})", over_native))
    rows.append(("least gain", [each["least of it"] for each in means]))
    peers = [ratio for ratio, _ in suite.over_best_peers().values()]
    return {
        "kinds": [KINDS[kind] for kind in ratios],
        "gains": [(name, *(f"{gain:.3g}×" for gain in gains)) for name, gains in rows],
        "over_peers": geometric_mean(peers),
        "peers": len(peers),
        "behind_peers": [*suite.behind_peers()],
        "behind_native": [*suite.behind_native()],
    }


def rooflines() -> Iterator[dict]:
    """Problems of each kind that was measured, with their times."""
    for kind, name in KINDS.items():
        found = suite.problem_lines(kind)
        if found:
            yield {
                "kind": kind,
                "name": name,
                "place": place(found[0]["environments"][kind]),
                "problems": [problem_cells(line, kind) for line in found],
            }


def problem_cells(line: dict, kind: str) -> tuple[str, ...]:
    """A problem, its time by native and by plan, the plan, and the roofline's ratio;
    the three passes together."""
    found = line["kinds"][kind]
    native, planned = total(found), total(found, found["plan"])
    plan = [found["plan"][name] for name in PASSES]
    return (
        str(Problem.from_dict(line["key"])),
        milliseconds(native),
        milliseconds(planned),
        f"{native / planned:.2f}×",
        ", ".join(f"`{each}`" for each in (plan if len(set(plan)) > 1 else plan[:1])),
        f"{planned / (3 * found['least']):.1f}×",
    )


def large_tensors() -> Iterator[tuple[str, ...]]:
    """Plans over the roofline, for tensors larger than any cache."""
    every = records_of("suite-large-*")
    for kept, note in ((False, ""), (True, ", freed memory kept")):
        lines = [line for line in every if line.get("keeps_memory", False) is kept]
        for kind, title in KINDS.items():
            if means := means_of(lines, kind):
                near = (means[f"{name} over roofline, large"] for name in PASSES)
                yield (
                    f"{title} ({means['problems']} problems){note}",
                    *(f"{each:.2f}×" for each in near),
                    f"{means['native over plan']:.3g}×",
                )


def partition_sizes() -> Iterator[dict]:
    """The measured curves of time against partition size."""
    for name, result in results_of("partition-sizes-*.json"):
        environment = result["environment"]
        yield {
            **result,
            "figure": name,
            "name": KINDS[kind_of(environment)],
            "problem": Problem.from_dict(result["problem"]),
            "place": place(environment),
            "was_busy": result["load_average"] > environment["cores"],
        }


def growths() -> Iterator[dict]:
    """The measured curves of time against each size of a problem."""
    for name, result in results_of("growth-*.json"):
        here = result["environment"]
        yield {"figure": name, "place": f"{place(here)}, {here['compiler_mode']}"}


def regrets() -> Iterator[tuple[str, ...]]:
    """Regret of the nearest problem's decision."""
    for name, result in results_of("leave-one-out-*.json"):
        kind = KINDS[kind_of(result["environment"])]
        yield (
            kind + (", dense" if "dense" in name else ""),
            str(result["problems"]),
            str(result["not_native"]),
            f"{result['regret_geometric_mean']:.2f}",
            f"{result['regret_worst']:.2f}",
            f"{result['slower_than_native_95_percent_at_most']:.2f}",
        )


def quick_tuning() -> Iterator[tuple[str, ...]]:
    """Seconds of the tuner and of an exhaustive search, and the loss of its choice."""
    for _, result in results_of("exhaustive-*.json"):
        yield (
            f"{KINDS[kind_of(result['environment'])]}: {result['workload']}",
            f"{result['seconds']['quick']:.0f} s",
            f"{result['seconds']['exhaustive']:.0f} s",
            f"{result['total_of_chosen_over_best']:.3f}",
        )


def endurance() -> dict:
    """Figures of each part of the tuner's stress test."""
    return {name: each["figures"] for name, each in read("endurance-jax.json").items()}


def gpu_programs() -> dict:
    """Machine code of `triton` for an H100, on the problems that a GPU is judged by."""
    costs = [each for each in read("gpu-costs.json").values() if isinstance(each, dict)]
    result = read("gpu-programs.json")
    return {
        **result,
        "fitted": sum(each["programs"] for each in costs),
        "error": max(each["mean_error_held_out"] for each in costs),
        "headlines": [
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
        ],
    }
