"""Hostile documents, and what an import of them costs.

    python -m tests.storage.hostile [COUNT]

Each document is imported in a process of its own, by the command. Printed are the most
seconds of its CPU and the most memory that an import took, and what it did beside
refusing or importing: a traceback, something unprintable, a file outside of the store.
"""

import dataclasses
import json
import os
import random
import re
import resource
import sys
import tempfile
import traceback
import unicodedata
from pathlib import Path

from keras_diagwise.storage.document import MAX_BYTES, MAX_DECISIONS
from keras_diagwise_cli import run
from tests.samples import HERE, decision, document, with_batch

MAX_SECONDS = 5.0
MAX_MEMORY = 500 * 2**20

VALID = document(HERE, decision()).to_text()
ESCAPES = "\x1b[31m\x1b]0;title\x07\u202e\r\n\x00\u200b"
NUMBERS = ("0", "-1", "5e-324", "1e308", "NaN", "9223372036854775808", "1e999")
WORDS = ("../../../../tmp/x", "/etc/passwd", "file:///x", "{{7*7}}", "[red]", "%s%n")


def repeated(text: str, size: int) -> str:
    return text * max(1, size // len(text))


def decisions() -> list:
    return json.loads(VALID)["environments"][0]["decisions"]


def with_decisions(one: str, size: int) -> str:
    """A document with a decision again and again."""
    values = json.loads(VALID)
    values["environments"][0]["decisions"] = []
    head, tail = json.dumps(values).split("[]", 1)
    return head + "[" + ",".join([one] * max(1, size // len(one))) + "]" + tail


def different_decisions(draw, size):
    """Valid ones, all of them different."""
    count = min(size // len(json.dumps(decisions()[0])), MAX_DECISIONS)
    return document(
        HERE, *(decision(with_batch(n + 1)) for n in range(count))
    ).to_text()


def different_environments(draw, size):
    values = json.loads(VALID)
    (one,) = values["environments"]
    count = max(1, size // len(json.dumps(one)))
    values["environments"] = [
        {**one, "environment": {**one["environment"], "device_name": f"d{n}"}}
        for n in range(count)
    ]
    return json.dumps(values)


def mutated(draw, size):
    """A valid document with some of its letters replaced."""
    letters = list(VALID)
    for _ in range(draw.randint(1, 8)):
        letters[draw.randrange(len(letters))] = draw.choice('{}[]",:0-9e\\\x1bé')
    return "".join(letters)


def with_a_text(texts):
    """A valid document with one text in place of another."""

    def make(draw, size):
        parts = VALID.split('"')
        parts[draw.randrange(1, len(parts), 2)] = draw.choice(texts)
        return '"'.join(parts)

    return make


def with_a_number(draw, size):
    places = list(re.finditer(r"(?<=[ \[])\d[\d.e+-]*(?=[,\]\}\n])", VALID))
    place = draw.choice(places)
    return VALID[: place.start()] + draw.choice(NUMBERS) + VALID[place.end() :]


KINDS = {
    "lists in a list": lambda draw, size: "[" + repeated("[],", size) + "[]]",
    "objects in a list": lambda draw, size: "[" + repeated('{"a":0},', size) + "0]",
    "lists of decisions": lambda draw, size: with_decisions("[]", size),
    "objects for decisions": lambda draw, size: with_decisions('{"a":{}}', size),
    "one decision again and again": lambda draw, size: with_decisions(
        json.dumps(decisions()[0]), size
    ),
    "different decisions": different_decisions,
    "different environments": different_environments,
    "deep lists": lambda draw, size: "[" * size,
    "deep objects": lambda draw, size: '{"a":' * (size // 5),
    "a long text": lambda draw, size: VALID.replace('"here"', f'"{"x" * size}"'),
    "escapes": lambda draw, size: VALID.replace(
        '"here"', json.dumps(ESCAPES * draw.randint(1, 50))
    ),
    "escapes for all": lambda draw, size: json.dumps(repeated(ESCAPES, size // 6)),
    "a long number": lambda draw, size: VALID.replace(": 8", ": " + "9" * size, 1),
    "noise": lambda draw, size: draw.randbytes(min(size, 2**20)).decode("latin-1"),
    "a cut": lambda draw, size: VALID[: draw.randrange(len(VALID))],
    "mutated": mutated,
    "a path or a template": with_a_text(WORDS),
    "a text of escapes": with_a_text([json.dumps(ESCAPES)[1:-1]]),
    "another number": with_a_number,
    "spaces": lambda draw, size: VALID + " " * size,
    "names": lambda draw, size: "{" + repeated('"a":0,', size) + '"b":0}',
}


def made(kind: str, seed: int, size: int) -> bytes:
    """A document of a kind, so many bytes at most or so."""
    text = KINDS[kind](random.Random(seed), size)
    return text.encode("utf-8", "replace")[:MAX_BYTES]


def is_unprintable(text: str) -> bool:
    """Whether a terminal would do more than show it."""
    kinds = {unicodedata.category(letter) for letter in text if letter not in "\n\t"}
    return bool(kinds & {"Cc", "Cf", "Cs"})


def resident() -> int:
    """Bytes that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an import took and did.

    Attributes:
        seconds: of the CPU.
        memory: bytes beyond those that it began with.
        faults: what it must not do.
    """

    seconds: float
    memory: int
    faults: list[str]


def import_in_a_process(content: bytes) -> Cost:
    """Imports a document into an empty store."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "hostile.json"
        path.write_bytes(content)
        process = os.fork()
        if process == 0:
            os._exit(status_of_import(path, folder))
        _, ending, used = os.wait4(process, 0)
        status = os.waitstatus_to_exitcode(ending)
        text = (folder / "output").read_text(errors="replace")
        faults = []
        if status not in (0, 2) or "Traceback" in text:
            faults.append(f"it ended with {status}: {text[-300:]!r}")
        if is_unprintable(text):
            faults.append(f"it printed {text[:300]!r}")
        others = {each.name for each in folder.iterdir()}
        if others - {"hostile.json", "before", "output", "store"}:
            faults.append(f"it wrote {sorted(others)}")
        before = int((folder / "before").read_text())
        memory = max(0, 1024 * used.ru_maxrss - before)
        return Cost(used.ru_utime + used.ru_stime, memory, faults)


def status_of_import(path: Path, folder: Path) -> int:
    """Runs the command, its streams into a file, and returns its exit status."""
    os.environ["KERAS_DIAGWISE_STORE"] = str(folder / "store")
    os.chdir(folder)
    Path("before").write_text(str(resident()))
    stream = os.open("output", os.O_WRONLY | os.O_CREAT)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = ["keras-diagwise", "decisions", "import", str(path)]
    try:
        run()
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def main(count: int) -> int:
    worst: dict[str, Cost] = {}
    draw = random.Random(0)
    bad = 0
    for seed in range(count):
        kind = list(KINDS)[seed % len(KINDS)]
        size = draw.choice([2**12, 2**18, MAX_BYTES - 4096, MAX_BYTES - 4096])
        cost = import_in_a_process(made(kind, seed, size))
        known = worst.get(kind, cost)
        worst[kind] = Cost(
            max(cost.seconds, known.seconds), max(cost.memory, known.memory), []
        )
        if cost.faults or cost.seconds > MAX_SECONDS or cost.memory > MAX_MEMORY:
            bad += 1
            print(kind, seed, size, cost, flush=True)
    for kind, cost in worst.items():
        print(f"{kind}: {cost.seconds:.2f} s, {cost.memory / 2**20:.0f} MiB")
    print(f"{count} documents, {bad} bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 500))
