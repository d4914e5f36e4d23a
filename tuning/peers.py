"""Times a model's training step on every backend, also with its memory in huge pages.

MobileNet and MobileNetV2 also as plain torch modules, without Keras.

    python -m tuning.peers [--names MobileNet,…] [--image-size 96] [--batch-size 16]

Stock and converted models run in processes of their own, which take turns of `STEPS`
steps: a pause after each step, in which the system may take freed pages back, is not
what training does. Those far behind the fastest stock one get one turn. Appends a line
to tuning/results/<device>/peers.jsonl for each model; known ones are not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
from typing import NamedTuple

from keras_diagwise_cli.diagnosis.nvidia import has_driver
from keras_diagwise_cli.tunables import VARIABLE, with_huge_pages
from tuning.ratios import touch_memory
from tuning.records import Records, device_folder, installed
from tuning.steps import BATCH_SIZE, IMAGE_SIZE
from tuning.suite import Peer, kinds_of, peers_of

NAMES = ("MobileNet", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0")
TURNS, STEPS = 10, 20
FAR_BEHIND = 2.0
"""Multiple of the fastest stock step past which a peer gets no further turn."""

PLAIN = "torch-plain"

DEFAULT, HUGE_PAGES = "default", "huge pages"
"""How a process has its memory: as it comes, or by `keras-diagwise run`."""
VARIABLES = {DEFAULT: {}, HUGE_PAGES: {VARIABLE: with_huge_pages()}}
"""Variables of the environment of such a process."""


class Setting(NamedTuple):
    """What a process runs, and how it has its memory."""

    kind: str
    converted: bool
    memory: str = DEFAULT


def settings_by_default() -> list[Setting]:
    """Stock and converted under each kind, and plain torch if it is installed."""
    found = [
        Setting(kind, converted)
        for kind in kinds_of(installed())
        for converted in (False, True)
    ]
    if "torch" in installed() and not has_driver():  # the modules stay on the CPU
        found.append(Setting(PLAIN, False))
    return found


class Race:
    """Processes that run one model, and the median seconds of each of their turns."""

    def __init__(self, stack: contextlib.ExitStack, *model):
        self._stack, self._model = stack, model
        self._shuffle = random.Random(0).shuffle
        self.peers: dict[Setting, Peer] = {}
        self.turns: dict[Setting, list[float]] = {}
        self.environments: dict[Setting, dict] = {}

    def join(self, setting: Setting) -> None:
        """Starts a process, which builds the model and runs a first step."""
        peer = Peer(setting.kind, VARIABLES[setting.memory])
        self._stack.callback(peer.end)
        name, *sizes = self._model
        if setting.kind == PLAIN and name not in peer.ask("modules"):
            peer.end()
            return
        self.environments[setting] = peer.ask("environment")
        peer.ask("build", name, *sizes, setting.converted)
        self.peers[setting], self.turns[setting] = peer, []

    def take_turns(self) -> None:
        """Runs a turn of every process, in a shuffled order."""
        order = list(self.peers)
        self._shuffle(order)
        for setting in order:
            taken = [self.peers[setting].ask("step") for _ in range(STEPS)]
            self.turns[setting].append(statistics.median(taken))

    def end_far_behind(self) -> None:
        """Ends the processes that are far behind the fastest stock one of Keras; not
        JAX's converted one and plain torch's, which are compared in any case."""
        latest = {setting: self.turns[setting][-1] for setting in self.peers}
        compared = Setting("jax", converted=True), Setting(PLAIN, converted=False)
        stock = [
            taken
            for setting, taken in latest.items()
            if not (setting.converted or setting.kind == PLAIN)
        ]
        for setting, taken in latest.items():
            if taken > FAR_BEHIND * min(stock) and setting not in compared:
                self.peers.pop(setting).end()


def race(name: str, image_size: int, batch_size: int) -> Race:
    """Runs a model under all settings."""
    with contextlib.ExitStack() as stack:
        result = Race(stack, name, image_size, batch_size)
        for setting in settings_by_default():
            result.join(setting)
        result.take_turns()
        result.end_far_behind()
        for setting in list(result.peers):
            result.turns[setting] = []
            result.join(setting._replace(memory=HUGE_PAGES))
        for _ in range(TURNS):
            result.take_turns()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", default=",".join(NAMES))
    parser.add_argument("--image-size", type=int, default=IMAGE_SIZE)
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    options = parser.parse_args()
    sizes = options.image_size, options.batch_size
    touch_memory()
    with peers_of(["jax"]) as (peer,):
        folder = device_folder(peer.ask("environment"))
    records = Records(folder / "peers.jsonl")
    for name in options.names.split(","):
        if [name, *sizes] in records:
            continue
        found = race(name, *sizes)
        milliseconds = [
            {**setting._asdict(), "of_turns": [1e3 * each for each in taken]}
            for setting, taken in found.turns.items()
        ]
        environments = {
            setting.kind: environment
            for setting, environment in found.environments.items()
        }
        records.add(
            [name, *sizes], environments=environments, milliseconds=milliseconds
        )
        for each in milliseconds:
            print(name, each, flush=True)


if __name__ == "__main__":
    main()
