"""What the tests give under another version of Keras, which the page of compatibility
shows.

    python -m tuning.keras_versions [argument of pytest …]

It runs `TESTS` with the Python, the Keras and the backend that are here, and puts how
many passed into tuning/results/keras-versions.json, in place of what an earlier run
under these versions gave. `nox -s matrix` does it for each version and backend, and
`nox -s newest` for the newest of all that an index has.
"""

from __future__ import annotations

import collections
import datetime
import importlib.metadata
import platform
import sys

import pytest
from packaging.version import Version

from tuning.records import PACKAGES, known, write

RESULT = "keras-versions.json"

TESTS = [
    "tests/layers",
    *(f"tests/models/test_{each}.py" for each in ("convert", "files", "pin", "tune")),
]

VERSIONS = ("keras", "version", "python")
"""By which, and by the backend, runs differ."""


class Outcomes(collections.Counter):
    """How many tests ended in which way, a plugin of pytest's."""

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self[report.outcome] += 1


def main() -> int:
    outcomes = Outcomes()
    status = pytest.main(["-q", *TESTS, *sys.argv[1:]], plugins=[outcomes])
    import keras  # after tests/conftest.py, which says how

    backend = keras.backend.backend()
    run = {
        "keras": keras.__version__,
        "backend": backend,
        "version": importlib.metadata.version(PACKAGES[backend]),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        **{name: outcomes[name] for name in ("passed", "failed", "skipped")},
    }
    others = [each for each in known(RESULT).get("runs", []) if key(each) != key(run)]
    runs = sorted([*others, run], key=key)
    write(RESULT, {"tests": TESTS, "runs": runs})
    print(run)
    return int(status)


def key(run: dict) -> tuple:
    """What no other run has, and the order of runs."""
    return run["backend"], *(Version(run[name]) for name in VERSIONS)


if __name__ == "__main__":
    sys.exit(main())
