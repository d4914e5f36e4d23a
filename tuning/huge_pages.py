"""Times a model's training step with and without its memory in huge pages.

    python -m tuning.huge_pages [--names MobileNetV2,…] [--kind jax]

`keras-diagwise doctor` measures this for a small model. Each runs in its own process,
and they take turns of `STEPS` steps: a pause after each step, in which the system may
take freed pages back, is not what training does. Appends a line to
tuning/results/<device>/huge-pages.jsonl for each model and kind; known ones are not run
again.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics

from keras_diagwise_cli.tunables import VARIABLE, with_huge_pages
from tuning.ratios import lower_bound, touch_memory, upper_bound
from tuning.records import Records, device_folder, installed
from tuning.steps import BATCH_SIZE, IMAGE_SIZE
from tuning.suite import Peer, kinds_of

NAMES = ("MobileNet", "MobileNetV2", "EfficientNetB0")
TURNS, STEPS = 10, 20
VARIABLES: dict[str, dict] = {
    "as it is": {},
    "huge pages": {VARIABLE: with_huge_pages()},
}


def turns_of(peers: dict[str, Peer]) -> dict[str, list[float]]:
    """Median seconds of the steps of each turn, by peer."""
    samples: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(TURNS):
        for name, peer in peers.items():
            taken = [peer.ask("step") for _ in range(STEPS)]
            samples[name].append(statistics.median(taken))
    return samples


def figures_of(samples: dict[str, list[float]]) -> dict:
    """Medians, and the ratio of the steps of two turns."""
    as_it_is, huge_pages = samples["as it is"], samples["huge pages"]
    ratios = [b / a for a, b in zip(as_it_is, huge_pages, strict=True)]
    return {
        "as_it_is_ms": 1e3 * statistics.median(as_it_is),
        "huge_pages_ms": 1e3 * statistics.median(huge_pages),
        "huge_pages_over_as_it_is": statistics.median(ratios),
        "95_percent_bounds": [lower_bound(ratios), upper_bound(ratios)],
        "turns": len(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", default=",".join(NAMES))
    parser.add_argument("--kind", default="jax", choices=kinds_of(installed()))
    options = parser.parse_args()
    touch_memory()
    with contextlib.ExitStack() as stack:
        peers = {}
        for name, variables in VARIABLES.items():
            peers[name] = Peer(options.kind, variables)
            stack.callback(peers[name].end)
        environment = peers["as it is"].ask("environment")
        records = Records(device_folder(environment) / "huge-pages.jsonl")
        for name in options.names.split(","):
            key = [options.kind, name, IMAGE_SIZE, BATCH_SIZE]
            if key in records:
                continue
            for peer in peers.values():
                peer.ask("build", name, IMAGE_SIZE, BATCH_SIZE, True)
            figures = figures_of(turns_of(peers))
            records.add(key, environment=environment, **figures)
            print(name, figures, flush=True)


if __name__ == "__main__":
    main()
