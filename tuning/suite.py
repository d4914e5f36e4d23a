"""The suite: each problem's three passes, by every backend that is installed, as
they are stock and as they are tuned, against each other and against the least
possible time.

    python -m tuning.suite [--problems NAME] [--backends jax,torch,…] [--stop-after S]

Every backend works in a process of its own; they take turns, round by round. A line
is written into tuning/results/<device>/suite-<problems>.jsonl for each problem as
soon as it is done, and what is there is not run again. The last lines printed are a
table of what all lines say.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib.util
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from keras_diagwise.problem import PASSES, Problem
from tuning.workloads import SETS, problems_of

RESULTS = Path(__file__).with_name("results")
ROUNDS = 5
SECONDS_PER_ROUND = 0.15

KINDS = {
    "jax": ("jax", "xla"),
    "tensorflow": ("tensorflow", "graph"),
    "tensorflow-xla": ("tensorflow", "xla"),
    "torch": ("torch", "eager"),
}
"""Backend and compiler mode, by the name of what is compared."""


class Peer:
    """A worker process, and how to ask it."""

    def __init__(self, kind: str):
        backend, mode = KINDS[kind]
        self.kind = kind
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tuning.worker", mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def ask(self, name: str, *arguments):
        """The worker's answer.

        Raises:
            RuntimeError: if it has none.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([name, *arguments]), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the worker ended"}
        if "error" in answer:
            raise RuntimeError(f"{self.kind}, {name}: {answer['error']}")
        return answer["answer"]

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def peers_of(kinds) -> Iterator[list[Peer]]:
    """The workers, which end with the block."""
    peers = [Peer(kind) for kind in kinds]
    try:
        yield peers
    finally:
        for peer in peers:
            peer.end()


def installed() -> list[str]:
    """The kinds whose backend is there."""
    return [kind for kind, (name, _) in KINDS.items() if importlib.util.find_spec(name)]


def compared(problem: Problem, peers: list[Peer]) -> dict:
    """A problem's line: for each kind and pass, each candidate's median time."""
    asked = problem.to_dict()
    line: dict = {"problem": str(problem), "key": asked, "kinds": {}}
    tuned = {}
    for peer in peers:
        try:
            tuned[peer] = peer.ask("tune", asked)
            line["kinds"][peer.kind] = {
                "plan": tuned[peer]["plan"],
                "seconds_to_tune": tuned[peer]["seconds"],
                "passes_tuned": tuned[peer]["measured"],
                "least": peer.ask("least", asked),
                "seconds": {},
            }
        except RuntimeError as error:
            line["kinds"][peer.kind] = {"error": str(error)}
    shuffle = random.Random(0).shuffle
    for name in PASSES:
        samples: dict = collections.defaultdict(list)
        order = list(tuned)
        for _ in range(ROUNDS):
            shuffle(order)
            for peer in order:
                candidates = tuned[peer]["candidates"][name]
                taken = peer.ask("time", asked, name, candidates, SECONDS_PER_ROUND)
                for candidate, each in taken.items():
                    samples[peer.kind, candidate].append(statistics.median(each))
        for (kind, candidate), each in samples.items():
            seconds = line["kinds"][kind]["seconds"].setdefault(name, {})
            seconds[candidate] = [float(f"{s:.4g}") for s in each]
    return line


def device_folder(environment: dict) -> Path:
    """Where a device's results lie."""
    words = f"{environment['device_name']}-{environment['cores']}-cores"
    return RESULTS / re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", choices=SETS, default="models")
    parser.add_argument("--backends", default=",".join(installed()))
    parser.add_argument("--stop-after", type=float, default=float("inf"))
    options = parser.parse_args()
    until = time.monotonic() + options.stop_after
    with peers_of(options.backends.split(",")) as peers:
        environments = {peer.kind: peer.ask("environment") for peer in peers}
        folder = device_folder(next(iter(environments.values())))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"suite-{options.problems}.jsonl"
        lines = [json.loads(each) for each in path.open()] if path.exists() else []
        known = {json.dumps(each["key"]) for each in lines}
        for problem in problems_of(options.problems):
            if json.dumps(problem.to_dict()) in known:
                continue
            if time.monotonic() > until:
                break
            line = {**compared(problem, peers), "environments": environments}
            with path.open("a") as file:
                print(json.dumps(line), file=file)
            lines.append(line)
            print(problem, flush=True)


if __name__ == "__main__":
    main()
