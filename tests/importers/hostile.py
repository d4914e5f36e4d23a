"""What a damaged file may cost, and what its error must say."""

import json
import re
import time
import tracemalloc

MAX_SECONDS = 2.0
MAX_MEMORY = 200 * 2**20
SECONDS_OF_PARSE = 0.25
"""CPU time of `parse` on a machine that has nothing else to do."""

NUMBERS = [
    *("0", "-1", "-3", "1", "2147483647", "2147483648", "99999999999999999999"),
    *("1e9", "NaN", "inf", "-0", "0x10", "3.5", "", "1,2,3", "\x1b[31m", "9" * 5000),
]


def fault(load, paths, place):
    """What is wrong with the refusal of files, or `None`; also if they are taken.

    Args:
        load: an importer's.
        paths: the files that it takes.
        place: an expression that finds a place in an error.
    """
    text, seconds = timed(lambda: refusal(load, paths))
    if text is None:
        return None
    if not any(str(path) in text for path in paths):
        return f"names no file: {text:.300}"
    if not re.search(place, text):
        return f"names no place: {text:.300}"
    if not text.isprintable():
        return f"is not printable: {text!r:.300}"
    if len(text) > 1000 + sum(len(str(path)) for path in paths):
        return f"is {len(text)} characters long"
    memory = memory_of(lambda: refusal(load, paths))
    if seconds > MAX_SECONDS:  # perhaps of a busy machine, as `parse` then shows
        seconds *= SECONDS_OF_PARSE / timed(parse)[1]
    if seconds > MAX_SECONDS or memory > MAX_MEMORY:
        return f"took {seconds:.1f} s and {memory / 2**20:.0f} MiB: {text:.300}"
    return None


def timed(call):
    """What a call returns, and the CPU time that it takes, in seconds."""
    start = time.process_time()
    found = call()
    return found, time.process_time() - start


def parse():
    """Python's own work on a megabyte of lists, most of what the slowest files take."""
    return json.loads("[" + "[]," * 300_000 + "0]")


def refusal(load, paths):
    """The text of the error of files, or `None`."""
    try:
        load(*paths)
    except ValueError as error:
        return str(error)
    return None


def memory_of(call):
    """The most bytes that Python and numpy hold during a call, which it slows down."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def changed_text(draw, text, words):
    """A text of lines with some damage: a number, a word, or lines."""
    lines = text.splitlines()
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        at = draw.randrange(len(lines))
        numbers = list(re.finditer(r"-?\d[\d.]*", lines[at]))
        kind = draw.choice(["number"] * 4 + ["word", "cut", "again", "swap", "insert"])
        if kind == "number" and numbers:
            found = draw.choice(numbers)
            line = lines[at]
            number = draw.choice(NUMBERS)
            lines[at] = line[: found.start()] + number + line[found.end() :]
        elif kind == "word":
            lines[at] = re.sub(r"[A-Za-z_]+", draw.choice(words), lines[at], count=1)
        elif kind == "cut":
            lines[at] = lines[at][: draw.randrange(len(lines[at]) + 1)]
        elif kind == "again":
            lines.insert(at, draw.choice(lines))
        elif kind == "swap":
            other = draw.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        else:
            lines.insert(at, f"{draw.choice(words)}={draw.choice(NUMBERS)}")
    return "\n".join(lines)


def changed_bytes(draw, content):
    """Bytes that are cut, longer, or others in places."""
    kind = draw.choice(["cut", "longer", "bits", "noise", "empty"])
    if kind == "cut":
        return content[: draw.randrange(len(content))]
    if kind == "longer":
        return content + draw.randbytes(draw.choice([1, 4, 1000]))
    if kind == "noise":
        return draw.randbytes(draw.randrange(1, 2 * len(content)))
    if kind == "empty":
        return b""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        changed[draw.randrange(len(changed))] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
    return bytes(changed)
