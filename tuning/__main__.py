"""The whole campaign on this machine, by one command that goes on where it was.

    python -m tuning [--setting small|cpu|gpu] [--minutes 9.5] [--backends jax,torch]
                     [--collect FOLDER]

Correctness first, then the curve of partition sizes, the suite, and whole models, on
every backend that is installed; each part in processes of its own. It stops in time,
says what is left, and goes on when it is called again. At the setting for a GPU what
was measured is added to what ships. `--collect` puts all results and what ships into
one archive, for a machine that is given back. Exit status: 0 if all is done, 75 if
there is more to do, 1 if a part failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from tuning.records import OVER, RESULTS, child_environment, installed

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "keras_diagwise/planning/shipped"

ON_A_GPU = (
    *("MobileNetV2", "EfficientNetB0", "ConvNeXtTiny"),
    *("MobileNetV3Large", "EfficientNetV2B0", "Xception"),
)

SETTINGS: dict[str, dict[str, list[str]]] = {
    "small": {
        "suite": ["--problems", "small"],
        "models": ["--names", "MobileNetV2", "--image-size", "32", "--batch-size", "2"],
    },
    "cpu": {
        "suite": ["--problems", "models"],
        "models": [],
    },
    "gpu": {
        "partition_sizes": ["--batch", "128", "--dtype", "bfloat16"],
        "suite": [
            *("--problems", "models", "--batch", "128"),
            *("--dtypes", "bfloat16,float32"),
        ],
        "models": [
            *("--names", ",".join(ON_A_GPU)),
            *("--image-size", "224", "--batch-size", "64", "--budget", "120"),
            *("--policies", "mixed_bfloat16,float32"),
        ],
    },
}


def parts(setting: str, backends: list[str]) -> list[tuple[str, str, list[str]]]:
    """Module, backend and arguments of each part, in order."""
    options = SETTINGS[setting]
    suite = [*options["suite"], "--backends", ",".join(backends)]
    curve = options.get("partition_sizes")
    return [
        *(("tuning.correctness", backend, []) for backend in backends),
        *(("tuning.partition_sizes", each, curve) for each in backends if curve),
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


def run_all(setting: str, backends: list[str], until: float) -> int:
    """Runs the parts, one after the other, and returns the exit status."""
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
    """Puts all results, and what ships, into one archive."""
    with tarfile.open(folder / "campaign.tar.gz", "w:gz") as archive:
        for path in (RESULTS, SHIPPED):
            archive.add(path, path.relative_to(ROOT))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setting", choices=SETTINGS, default="small")
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--backends", default=",".join(installed()))
    parser.add_argument("--collect", type=Path)
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    if options.collect:
        options.collect.mkdir(parents=True, exist_ok=True)
    backends = options.backends.split(",")
    status = run_all(options.setting, backends, until)
    if options.setting == "gpu":
        run("tuning.ship", backends[0], ["--measured"], 0)
    if options.collect:
        collect(options.collect)
    if status == OVER:
        print("The time is over. Run it again to go on.")
    return status


if __name__ == "__main__":
    sys.exit(main())
