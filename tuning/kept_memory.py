"""Times a model's training step with and without freed memory kept in huge pages.

    python -m tuning.kept_memory [--names MobileNetV2,…] [--kind jax]

`keras-diagwise doctor` measures this for a small model. Each runs in its own process;
they alternate step by step. Appends a line to
tuning/results/<device>/kept-memory.jsonl for each model and kind; known ones are not
run again.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics

from keras_diagwise_cli.diagnosis.kept_memory import KEEP_HUGE_PAGES, VARIABLE
from tuning.peers import steps_in_turn
from tuning.ratios import lower_bound, touch_memory, upper_bound
from tuning.records import Records, device_folder
from tuning.steps import BATCH_SIZE, IMAGE_SIZE
from tuning.suite import KINDS, Peer

NAMES = ("MobileNetV2", "EfficientNetB0", "ResNet50")
VARIABLES: dict[str, dict] = {
    "as it is": {},
    "kept": {VARIABLE: KEEP_HUGE_PAGES},
}


def figures_of(samples: dict[str, list[float]]) -> dict:
    """Medians, and the ratio of steps within a round."""
    as_it_is, kept = samples["as it is"], samples["kept"]
    ratios = [b / a for a, b in zip(as_it_is, kept, strict=True)]
    return {
        "as_it_is_ms": 1e3 * statistics.median(as_it_is),
        "kept_ms": 1e3 * statistics.median(kept),
        "kept_over_as_it_is": statistics.median(ratios),
        "95_percent_bounds": [lower_bound(ratios), upper_bound(ratios)],
        "rounds": len(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", default=",".join(NAMES))
    parser.add_argument("--kind", default="jax", choices=KINDS)
    options = parser.parse_args()
    touch_memory()
    with contextlib.ExitStack() as stack:
        peers = {}
        for name, variables in VARIABLES.items():
            peers[name] = Peer(options.kind, variables)
            stack.callback(peers[name].end)
        environment = peers["as it is"].ask("environment")
        records = Records(device_folder(environment) / "kept-memory.jsonl")
        for name in options.names.split(","):
            key = [options.kind, name, IMAGE_SIZE, BATCH_SIZE]
            if key in records:
                continue
            for peer in peers.values():
                peer.ask("build", name, IMAGE_SIZE, BATCH_SIZE, True)
            figures = figures_of(steps_in_turn(peers))
            records.add(key, environment=environment, **figures)
            print(name, figures, flush=True)


if __name__ == "__main__":
    main()
