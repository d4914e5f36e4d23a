"""Times the package's import, beyond Keras's own, and its command's help.

    python -m tuning.import_time

Writes tuning/results/import-time-<backend>.json. Each run is a fresh process. The
import is timed inside it, after Keras's: the difference of two processes of several
seconds varies by more than the quantity sought.
"""

import statistics
import subprocess
import sys

from tuning.records import child_environment, write

ROUNDS = 9

PROGRAMS = {
    "import keras_diagwise, after keras": """
import time, keras
start = time.perf_counter()
import keras_diagwise
print(time.perf_counter() - start)
""",
    "keras-diagwise --help": """
import sys, time
start = time.perf_counter()
sys.argv[1:], sys.stdout = ["--help"], sys.stderr
from keras_diagwise_cli import run
try:
    run()
finally:
    print(time.perf_counter() - start, file=sys.__stdout__)
""",
}


def seconds_of(program: str, environment: dict[str, str]) -> float:
    """Seconds that a process reports."""
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return float(result.stdout)


def main() -> None:
    import keras

    from keras_diagwise.environment import Environment
    from keras_diagwise_cli.environment_record import environment_record

    backend = keras.backend.backend()
    environment = child_environment(backend)
    for program in PROGRAMS.values():  # writes bytecode, warms the file cache
        seconds_of(program, environment)
    samples: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(ROUNDS):
        for name, program in PROGRAMS.items():
            samples[name].append(round(seconds_of(program, environment), 4))
    medians = {name: statistics.median(taken) for name, taken in samples.items()}
    figures = {
        "medians_s": medians,
        "samples_s": samples,
        "environment": environment_record(Environment.current()),
    }
    write(f"import-time-{backend}.json", figures)
    for name, median in medians.items():
        print(f"{name}: {1e3 * median:.0f} ms")


if __name__ == "__main__":
    main()
