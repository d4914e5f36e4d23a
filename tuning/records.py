"""Files of results, and helpers shared by the parts of the campaign.

A folder for each device, a line of JSON for each measurement, written at once.
"""

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
"""Exit status of a part that stopped in time and has more to do."""

PACKAGES = {"jax": "jax", "tensorflow": "tensorflow-cpu", "torch": "torch"}
"""Package that the tests install for each backend."""


def installed() -> list[str]:
    """The installed backends."""
    return [each for each in PACKAGES if importlib.util.find_spec(each)]


def child_environment(backend: str) -> dict[str, str]:
    """Environment variables of a process that shares the device with others."""
    return {
        **os.environ,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


def device_folder(environment: dict) -> Path:
    """Folder of an environment's device."""
    words = f"{environment['device_name']}-{environment['cores']}-cores"
    return RESULTS / re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def results_name(part: str, environment: Environment) -> str:
    """Name of a part's results under an environment's backend and mode."""
    return f"{part}-{environment.backend}-{environment.compiler_mode}.json"


def write(name: str | Path, values: dict) -> None:
    """Writes a file of results."""
    path = RESULTS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n")


def known(name: str | Path) -> dict:
    """Contents of a file of results; empty if there is none."""
    path = RESULTS / name
    return json.loads(path.read_text()) if path.exists() else {}


def write_part(name: str, part: str, environment: Environment, figures: dict) -> None:
    """Writes the figures of a part and their environment into a file of results that
    several parts share."""
    results = known(name)
    results[part] = {
        "date": datetime.date.today().isoformat(),
        "environment": environment.to_dict(),
        "keras": importlib.metadata.version("keras"),
        "figures": figures,
    }
    write(name, results)


class Records:
    """An append-only file of records, one line each.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path):
        self._path = path
        text = path.read_text() if path.exists() else ""
        self.lines = [json.loads(line) for line in text.splitlines()]
        self._keys = {key_of(line["key"]) for line in self.lines}

    def __contains__(self, key: Any) -> bool:
        return key_of(key) in self._keys

    def add(self, key: Any, **values: Any) -> dict:
        """Appends a record and returns it."""
        line = {"key": key, **values}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            print(json.dumps(line), file=file)
        self.lines.append(line)
        self._keys.add(key_of(key))
        return line


def key_of(key: Any) -> Hashable:
    return json.dumps(key, sort_keys=True)
