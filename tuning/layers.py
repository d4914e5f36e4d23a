"""Times depthwise layers by JAX's plan against those of plain torch.

    python -m tuning.layers

Each of the three passes of the layers of MobileNetV2 and EfficientNetB0, in turn, each
framework in its own process, by default and with its memory in huge pages. Appends a
line to tuning/results/<device>/layers-against-torch.jsonl for each problem and memory;
known ones are not run again.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator

from keras_diagwise.problem import PASSES, Problem
from tuning.peers import PLAIN, VARIABLES
from tuning.ratios import geometric_mean, touch_memory
from tuning.records import Records, device_folder
from tuning.suite import Peer, peers_of
from tuning.workloads import applications, in_batch

NAMES = ("MobileNetV2", "EfficientNetB0")
BATCH_SIZE = 16
ROUNDS, SECONDS = 9, 0.1


def milliseconds_of(problem: Problem, jax: Peer, torch: Peer) -> dict[str, dict]:
    """Median milliseconds of each pass, by JAX's plan and in torch."""
    asked = problem.to_dict()
    plan = jax.ask("tune", asked)["plan"]
    found = {}
    for name in PASSES:
        ours, theirs = [], []
        for _ in range(ROUNDS):
            (taken,) = jax.ask("time", asked, name, [plan[name]], SECONDS).values()
            ours.append(statistics.median(taken))
            theirs.append(torch.ask("time_layer", asked, name, SECONDS))
        found[name] = {
            "plan": plan[name],
            "jax": 1e3 * statistics.median(ours),
            "torch": 1e3 * statistics.median(theirs),
        }
    return found


def ratio_of(milliseconds: dict[str, dict]) -> float:
    """JAX's three passes over torch's."""
    ours, theirs = (
        sum(each[framework] for each in milliseconds.values())
        for framework in ("jax", "torch")
    )
    return ours / theirs


def ratios_by_kernel(lines: list[dict]) -> Iterator[tuple[str, list[float]]]:
    """Kernel, memory and number of problems, and the ratios of JAX's plan to torch:
    that of the three passes, then of each; geometric means over the problems."""
    for name, group in itertools.groupby(sorted(lines, key=name_of), name_of):
        found = [line["milliseconds"] for line in group]
        passes = (
            geometric_mean(each[name]["jax"] / each[name]["torch"] for each in found)
            for name in PASSES
        )
        yield (
            f"{name} ({len(found)})",
            [geometric_mean(map(ratio_of, found)), *passes],
        )


def name_of(line: dict) -> str:
    """The kernel of a line's problem, and how the processes had their memory."""
    problem, memory = line["key"]
    return f"{'×'.join(map(str, problem['kernel_size']))}, {memory}"


def main() -> None:
    touch_memory()
    for memory in VARIABLES:
        records = measured(memory)
    for kernel, ratios in ratios_by_kernel(records.lines):
        named = zip(("three passes", *PASSES), ratios, strict=True)
        print(kernel, *(f"{name} {ratio:.2f}" for name, ratio in named), sep=", ")


def measured(memory: str) -> Records:
    """The records, with all problems under a memory, one of `VARIABLES`."""
    with peers_of(("jax", PLAIN), VARIABLES[memory]) as (jax, torch):
        environments = {
            "jax": jax.ask("environment"),
            "torch": torch.ask("environment"),
        }
        folder = device_folder(environments["jax"])
        records = Records(folder / "layers-against-torch.jsonl")
        for each in applications(NAMES):
            problem = in_batch(each, BATCH_SIZE, 2**30)
            key = [problem.to_dict(), memory]
            if key not in records:
                found = milliseconds_of(problem, jax, torch)
                records.add(key, environments=environments, milliseconds=found)
    return records


if __name__ == "__main__":
    main()
