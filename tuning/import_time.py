"""How long the package's import and its command's help take, in fresh processes:
`python -m tuning.import_time`, written to tuning/results/import-time-<backend>.json.

Seconds are those of the processor, user's and system's: an import waits for nothing,
and what else runs on the machine counts less in them than in the time that passes."""

import random
import resource
import statistics
import subprocess
import sys

from tuning.records import child_environment, write

ROUNDS = 9

PROGRAMS = {
    "keras": "import keras",
    "keras and keras_diagwise": "import keras, keras_diagwise",
    "keras-diagwise --help": (
        "import sys; sys.argv[1:] = ['--help']; "
        "from keras_diagwise_command import run; run()"
    ),
    "python": "pass",
}


def seconds_of(program: str, environment: dict[str, str]) -> float:
    """How much of the processor's time a process takes that runs a program."""
    start = children_seconds()
    subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return children_seconds() - start


def children_seconds() -> float:
    """What the processes that have ended took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sampled(environment: dict[str, str]) -> dict[str, list[float]]:
    """The seconds of each program, round by round in shuffled order."""
    samples: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    order = list(PROGRAMS)
    shuffle = random.Random(0).shuffle
    for name in order:  # compiles what is not, and warms the files' cache
        seconds_of(PROGRAMS[name], environment)
    for _ in range(ROUNDS):
        shuffle(order)
        for name in order:
            samples[name].append(seconds_of(PROGRAMS[name], environment))
    return samples


def main() -> None:
    import keras

    from keras_diagwise.cli.place import place
    from keras_diagwise.planning.environment import Environment

    backend = keras.backend.backend()
    samples = sampled(child_environment(backend))
    beyond = [
        ours - stock
        for ours, stock in zip(
            samples["keras and keras_diagwise"], samples["keras"], strict=True
        )
    ]
    figures = {
        "beyond_keras_s": round(statistics.median(beyond), 4),
        "medians_s": {
            name: round(statistics.median(taken), 4) for name, taken in samples.items()
        },
        "samples_s": {
            name: [round(each, 4) for each in taken] for name, taken in samples.items()
        },
        "environment": place(Environment.current()),
    }
    write(f"import-time-{backend}.json", figures)
    print(f"beyond Keras's own import: {1e3 * figures['beyond_keras_s']:.0f} ms")
    for name, median in figures["medians_s"].items():
        print(f"{name}: {median:.2f} s")


if __name__ == "__main__":
    main()
