"""Runs tests under the installed Keras for the page of compatibility.

    python -m tuning.keras_versions [argument of pytest …]

Runs `TESTS` with the installed Python, Keras and backend, and writes how many passed to
tuning/results/keras-versions.json, replacing an earlier run under these versions.
`nox -s matrix` does so for each version and backend, `nox -s newest` for the newest
versions on the index.
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
"""Fields that, with the backend, identify a run."""


class Outcomes(collections.Counter):
    """Pytest plugin that counts tests by outcome."""

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self[report.outcome] += 1


def main() -> int:
    outcomes = Outcomes()
    status = pytest.main(["-q", *TESTS, *sys.argv[1:]], plugins=[outcomes])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return int(status)
    import keras  # after tests/conftest.py, which configures it

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
    """Identity and sort key of a run."""
    return run["backend"], *(Version(run[name]) for name in VERSIONS)


if __name__ == "__main__":
    sys.exit(main())
