"""Times each problem's passes on every backend, stock and tuned, against the roofline.

    python -m tuning.suite [--problems NAME] [--backends jax,torch,…] [--batch 16]
                           [--dtypes float32,…] [--stop-after SECONDS]

Every installed backend runs in its own process; they alternate round by round. Appends
a line to tuning/results/<device>/suite-<problems>-<backends>.jsonl for each problem as
soon as it is done; known problems are not run again. With MALLOC_MMAP_THRESHOLD_ set,
the file is suite-<problems>-<backends>-kept.jsonl. Ends with a summary of all lines.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import itertools
import json
import os
import random
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

from keras_diagwise.problem import PASSES, Problem
from keras_diagwise_cli.diagnosis.nvidia import has_driver
from tuning.answers import Answering
from tuning.records import (
    OVER,
    Records,
    device_folder,
    installed,
)
from tuning.summary import print_summary
from tuning.workloads import SETS, problems_of

ROUNDS = 5
SECONDS_PER_ROUND = 0.15
FAR_BEHIND = 10.0
"""Multiple of its backend's best time past which a candidate gets no further round."""


KEEPS_MEMORY = "MALLOC_MMAP_THRESHOLD_" in os.environ
"""Whether the C library keeps large freed memory; if not, each page is faulted in
again, also in the copies that measure the roofline."""


class Kind(NamedTuple):
    """A configuration to compare: a backend in a compiler mode, under its own flags."""

    backend: str
    compiler_mode: str
    flags: dict | None = None
    needs_gpu: bool = False
    module: str = "tuning.worker"


KINDS = {
    "jax": Kind("jax", "xla"),
    "tensorflow": Kind("tensorflow", "graph"),
    "tensorflow-xla": Kind("tensorflow", "xla"),
    "torch": Kind("torch", "eager"),
    "torch-benchmark": Kind("torch", "eager", {"cudnn_benchmark": True}, True),
    "torch-compiled": Kind("torch", "inductor", {"cudnn_benchmark": True}, True),
    "torch-plain": Kind("torch", "eager", module="tuning.plain_torch"),
}
"""Kinds by name. On a GPU torch is compared by Keras's defaults and as a user can set
it; with channels last its convolutions run in that memory format anyway."""


class Peer:
    """A worker process that answers requests.

    Args:
        kind: one of `KINDS`.
        variables: environment variables set for the worker only.
    """

    def __init__(self, kind: str, variables: dict | None = None):
        found = KINDS[kind]
        self.kind = kind
        words = found.module, found.compiler_mode, json.dumps(found.flags or {})
        self._process = Answering(found.backend, *words, variables=variables)

    def ask(self, name: str, *arguments):
        """The worker's answer.

        Raises:
            RuntimeError: if the worker fails.
        """
        found = self._process.ask([name, *arguments])
        if "error" in found:
            raise RuntimeError(f"{self.kind}, {name}: {found['error']}")
        return found["answer"]

    def end(self) -> None:
        self._process.end()


@contextlib.contextmanager
def peers_of(kinds, variables: dict | None = None) -> Iterator[list[Peer]]:
    """Starts workers, with some environment variables, and ends them with the block."""
    peers = [Peer(kind, variables) for kind in kinds]
    try:
        yield peers
    finally:
        for peer in peers:
            peer.end()


def kinds_of(backends) -> list[str]:
    """Kinds of some backends that can tune here."""
    return [
        name
        for name, kind in KINDS.items()
        if kind.backend in backends
        and kind.module == Kind._field_defaults["module"]
        and (has_driver() or not kind.needs_gpu)
    ]


def compared(problem: Problem, peers: list[Peer]) -> dict:
    """Plan of each kind, and the median times of each candidate by pass."""
    asked = problem.to_dict()
    kinds: dict = {}
    tuned = {}
    for peer in peers:
        try:
            tuned[peer] = peer.ask("tune", asked)
            kinds[peer.kind] = {
                "plan": tuned[peer]["plan"],
                "seconds_to_tune": tuned[peer]["seconds"],
                "passes_tuned": tuned[peer]["measured"],
                "least": peer.ask("least", asked),
                "seconds": {},
            }
        except RuntimeError as error:
            kinds[peer.kind] = {"error": str(error)}
    shuffle = random.Random(0).shuffle
    for name in PASSES:
        samples: dict = collections.defaultdict(list)
        order = list(tuned)
        timed = {peer: tuned[peer]["candidates"][name] for peer in tuned}
        for _ in range(ROUNDS):
            shuffle(order)
            for peer in order:
                taken = peer.ask("time", asked, name, timed[peer], SECONDS_PER_ROUND)
                middle = {each: statistics.median(s) for each, s in taken.items()}
                for candidate, seconds in middle.items():
                    samples[peer.kind, candidate].append(seconds)
                most = FAR_BEHIND * min(middle.values())
                timed[peer] = [each for each in timed[peer] if middle[each] <= most]
        for (kind, candidate), each in samples.items():
            seconds = kinds[kind]["seconds"].setdefault(name, {})
            seconds[candidate] = [float(f"{s:.4g}") for s in each]
    return kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", choices=SETS, default="models")
    parser.add_argument("--backends", default=",".join(installed()))
    parser.add_argument("--batch", type=int, default=16, help="images at most")
    parser.add_argument("--dtypes", default="float32")
    parser.add_argument("--stop-after", type=float, default=float("inf"))
    options = parser.parse_args()
    until = time.monotonic() + options.stop_after
    backends = sorted(options.backends.split(","))
    with peers_of(kinds_of(backends)) as peers:
        environments = {peer.kind: peer.ask("environment") for peer in peers}
        folder = device_folder(next(iter(environments.values())))
        words = options.problems, *backends, *(["kept"] if KEEPS_MEMORY else [])
        records = Records(folder / f"suite-{'-'.join(words)}.jsonl")
        problems = problems_of(options.problems, options.batch, 2**18 * options.batch)
        for problem, dtype in itertools.product(problems, options.dtypes.split(",")):
            problem = dataclasses.replace(problem, dtype=dtype)
            if problem.to_dict() in records:
                continue
            if time.monotonic() > until:
                print_summary(records.lines)
                raise SystemExit(OVER)
            kinds = compared(problem, peers)
            records.add(
                problem.to_dict(),
                environments=environments,
                keeps_memory=KEEPS_MEMORY,
                kinds=kinds,
            )
            print(problem, flush=True)
    print_summary(records.lines)


if __name__ == "__main__":
    main()
