"""Where results lie: a folder for each device, a line of JSON for each thing that
was measured, written as soon as it is known; and what the parts have in common."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import json
import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_diagwise.environment import Environment

RESULTS = Path(__file__).with_name("results")

OVER = 75
"""The exit status of a part that stopped in time, and would go on."""

BACKENDS = ("jax", "torch", "tensorflow")

PACKAGES = {"jax": "jax", "tensorflow": "tensorflow-cpu", "torch": "torch"}
"""What the tests install for each backend."""


def installed() -> list[str]:
    """The backends that are there."""
    return [each for each in BACKENDS if importlib.util.find_spec(each)]


def child_environment(backend: str) -> dict[str, str]:
    """The environment variables of a process that shares the device with others."""
    return {
        **os.environ,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is at hand, told without asking the backend, which would
    take hold of it."""
    from keras_diagwise.cli.findings import NVIDIA_DRIVER

    return NVIDIA_DRIVER.exists()


def device_folder(environment: dict) -> Path:
    """The folder of the device that an environment names."""
    words = f"{environment['device_name']}-{environment['cores']}-cores"
    return RESULTS / re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def results_name(part: str, environment: Environment) -> str:
    """The name of a part's results in an environment's backend and mode."""
    return f"{part}-{environment.backend}-{environment.compiler_mode}.json"


def write(name: str | Path, values: dict) -> None:
    """Writes a file of results."""
    path = RESULTS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n")


def known(name: str | Path) -> dict:
    """What a file of results holds so far."""
    path = RESULTS / name
    return json.loads(path.read_text()) if path.exists() else {}


def write_part(name: str, part: str, environment: Environment, figures: dict) -> None:
    """Puts the figures of a part, and where they were taken, into a file of results
    beside those of others."""
    results = known(name)
    results[part] = {
        "date": datetime.date.today().isoformat(),
        "environment": environment.to_dict(),
        "keras": importlib.metadata.version("keras"),
        "figures": figures,
    }
    write(name, results)


class Records:
    """The lines of a file, to which more are added.

    Args:
        path: the file; it need not be there.
    """

    def __init__(self, path: Path):
        self._path = path
        text = path.read_text() if path.exists() else ""
        self.lines = [json.loads(line) for line in text.splitlines()]
        self._keys = {key_of(line["key"]) for line in self.lines}

    def __contains__(self, key: Any) -> bool:
        return key_of(key) in self._keys

    def add(self, key: Any, **values: Any) -> dict:
        """Writes a line, and returns it."""
        line = {"key": key, **values}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            print(json.dumps(line), file=file)
        self.lines.append(line)
        self._keys.add(key_of(key))
        return line


def key_of(key: Any) -> Hashable:
    return json.dumps(key, sort_keys=True)
