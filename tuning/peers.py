"""Times a model's training step, stock and converted, on every backend in turn.

MobileNet and MobileNetV2 also as plain torch modules, without Keras.

    python -m tuning.peers [--names MobileNet,…] [--image-size 96] [--batch-size 16]

Each runs in its own process; they alternate step by step. Appends a line to
tuning/results/<device>/peers.jsonl for each model; known models are not run again.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics

from tuning.ratios import touch_memory, upper_bound
from tuning.records import Records, device_folder, has_gpu, installed
from tuning.suite import Peer, kinds_of, peers_of

NAMES = ("MobileNet", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0")
ROUNDS = 20
PLAIN = "torch-plain"


def steps_in_turn(peers: dict[str, Peer]) -> dict[str, list[float]]:
    """Seconds of each peer's steps, interleaved in shuffled rounds."""
    samples: dict[str, list[float]] = {name: [] for name in peers}
    order = list(peers)
    shuffle = random.Random(0).shuffle
    for _ in range(ROUNDS):
        shuffle(order)
        for name in order:
            samples[name].append(peers[name].ask("step"))
    return samples


def figures_of(samples: dict[str, list[float]]) -> dict:
    """Medians, and JAX's converted step over the fastest stock one and over plain
    torch's."""
    medians = {name: statistics.median(taken) for name, taken in samples.items()}
    stock = {name: taken for name, taken in medians.items() if "stock" in name}
    fastest = min(stock, key=stock.__getitem__)
    figures = {
        "milliseconds": {name: 1e3 * taken for name, taken in medians.items()},
        "fastest_stock": fastest,
        **over("jax_converted_over_it", samples, fastest),
        "rounds": ROUNDS,
    }
    if PLAIN in samples:
        figures |= over("jax_converted_over_plain_torch", samples, PLAIN)
    return figures


def over(name: str, samples: dict[str, list[float]], other: str) -> dict[str, float]:
    """JAX's converted step over another: the median of the rounds' ratios, and its
    upper 95 % bound."""
    pairs = zip(samples["jax converted"], samples[other], strict=True)
    ratios = [a / b for a, b in pairs]
    return {
        name: statistics.median(ratios),
        f"{name}_95_percent_at_most": upper_bound(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", default=",".join(NAMES))
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    sizes = options.image_size, options.batch_size
    touch_memory()
    pairs = itertools.product(kinds_of(installed()), ("stock", "converted"))
    names = [" ".join(pair) for pair in pairs]
    if "torch" in installed() and not has_gpu():  # the modules stay on the CPU
        names.append(PLAIN)
    with peers_of(name.partition(" ")[0] for name in names) as workers:
        peers = dict(zip(names, workers, strict=True))
        environments = {name: peer.ask("environment") for name, peer in peers.items()}
        folder = device_folder(environments["jax stock"])
        records = Records(folder / "peers.jsonl")
        for name in options.names.split(","):
            if [name, *sizes] in records:
                continue
            built = {
                each: peer
                for each, peer in peers.items()
                if each != PLAIN or name in peer.ask("modules")
            }
            for each, peer in built.items():
                peer.ask("build", name, *sizes, each.endswith("converted"))
            figures = figures_of(steps_in_turn(built))
            records.add([name, *sizes], environments=environments, **figures)
            print(name, figures, flush=True)


if __name__ == "__main__":
    main()
