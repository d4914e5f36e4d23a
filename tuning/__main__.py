"""The whole campaign on this machine, by one command that goes on where it was.

    python -m tuning [--setting small|cpu|gpu] [--minutes 9.5] [--backends jax,torch]

Correctness first, then the suite, then whole models, on every backend that is
installed; each part in processes of its own. It stops in time, says what is left,
and goes on when it is called again. Exit status: 0 if all is done, 75 if there is
more to do, 1 if a part failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from tuning.records import OVER, child_environment, installed

SETTINGS = {
    "small": {
        "suite": ["--problems", "small"],
        "models": ["--names", "MobileNetV2", "--image-size", "32", "--batch-size", "2"],
    },
    "cpu": {
        "suite": ["--problems", "models"],
        "models": [],
    },
    "gpu": {
        "suite": ["--problems", "models", "--batch", "128"],
        "models": [
            *("--image-size", "224", "--batch-size", "64"),
            *("--policies", "float32,mixed_bfloat16"),
        ],
    },
}


def parts(setting: str, backends: list[str]) -> list[tuple[str, str, list[str]]]:
    """Module, backend and arguments of each part, in order."""
    options = SETTINGS[setting]
    suite = [*options["suite"], "--backends", ",".join(backends)]
    return [
        *(("tuning.correctness", backend, []) for backend in backends),
        ("tuning.suite", backends[0], suite),
        *(("tuning.models", backend, options["models"]) for backend in backends),
    ]


def run(module: str, backend: str, arguments: list[str], seconds: float) -> int:
    """Runs a part, that is told to stop after some seconds."""
    command = [sys.executable, "-m", module, *arguments]
    print(f"{module} on {backend}", flush=True)
    return subprocess.run(
        [*command, "--stop-after", f"{seconds:.0f}"],
        env=child_environment(backend),
    ).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setting", choices=SETTINGS, default="small")
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--backends", default=",".join(installed()))
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    failed = []
    for module, backend, arguments in parts(
        options.setting, options.backends.split(",")
    ):
        seconds = until - time.monotonic()
        if seconds < 0:
            print("The time is over. Run it again to go on.")
            return OVER
        status = run(module, backend, arguments, seconds)
        if status == OVER:
            return status
        if status:
            failed.append(f"{module} on {backend}")
    print("Failed:" if failed else "All is done.", *failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
