"""Runs the whole campaign on this machine; a later call resumes it.

    python -m tuning [--setting small|cpu|gpu|rehearsal] [--minutes 9.5]
                     [--backends jax,torch] [--collect FOLDER]

On a CPU: correctness, then the suite, then whole models, on every installed backend,
each part in its own processes. On a GPU, where minutes are scarce: a queue of small
jobs, see `tuning.campaign`; its rehearsal runs these jobs on a CPU with Triton's
interpreter in place of the device. It stops in time, prints what is left, and resumes
when called again. `--collect` packs all results and shipped decisions into one archive,
for a machine that is given back. Exit status: 0 if all is done, 75 if there is more to
do, 1 if a part failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from tuning import campaign
from tuning.records import OVER, RESULTS, child_environment, installed

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "keras_diagwise/planning/shipped"

QUEUES = {"gpu": campaign.full, "rehearsal": campaign.rehearsal}

SETTINGS: dict[str, dict[str, list[str]]] = {
    "small": {
        "suite": ["--problems", "small"],
        "models": ["--names", "MobileNetV2", "--image-size", "32", "--batch-size", "2"],
    },
    "cpu": {
        "suite": ["--problems", "models"],
        "models": [],
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
    """Runs a part with a time limit and returns its exit status."""
    command = [sys.executable, "-m", module, *arguments]
    print(f"{module} on {backend}", flush=True)
    return subprocess.run(
        [*command, "--stop-after", f"{seconds:.0f}"],
        env=child_environment(backend),
    ).returncode


def run_all(setting: str, backends: list[str], until: float) -> int:
    """Runs the parts one after another and returns the exit status."""
    failed = []
    for module, backend, arguments in parts(setting, backends):
        seconds = until - time.monotonic()
        if seconds < 0:
            return OVER
        status = run(module, backend, arguments, seconds)
        if status == OVER:
            return status
        if status:
            failed.append(f"{module} on {backend}")
    print("Failed:" if failed else "All is done.", *failed)
    return 1 if failed else 0


def collect(folder: Path) -> None:
    """Packs all results and shipped decisions into one archive."""
    with tarfile.open(folder / "campaign.tar.gz", "w:gz") as archive:
        for path in (RESULTS, SHIPPED):
            archive.add(path, path.relative_to(ROOT))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    settings = [*SETTINGS, *QUEUES]
    parser.add_argument("--setting", choices=settings, default="small")
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--backends", default=",".join(installed()))
    parser.add_argument("--collect", type=Path)
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    if options.collect:
        options.collect.mkdir(parents=True, exist_ok=True)
    backends = options.backends.split(",")
    if options.setting in QUEUES:
        folder = RESULTS / options.setting
        is_done = campaign.run(QUEUES[options.setting](), backends, until, folder)
        campaign.show(folder)
        status = 0 if is_done else OVER
    else:
        status = run_all(options.setting, backends, until)
    if options.collect:
        collect(options.collect)
    if status == OVER:
        print("The time is over. Run it again to go on.")
    return status


if __name__ == "__main__":
    sys.exit(main())
