"""Stress-tests tuning: kills, concurrent processes, a time budget.

    python -m tests.stress.endurance [kills | processes | budget …]

Each part writes its figures to tuning/results/endurance-<backend>.json at once.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import rich.console
import rich.table

import keras_diagwise
from keras_diagwise.environment import Environment
from keras_diagwise.problem import PASSES, Problem
from keras_diagwise.storage.files import DECISION_NAME, LEASE_NAME
from keras_diagwise.storage.plain_files import TEMPORARY_NAME
from keras_diagwise.storage.store import Store
from keras_diagwise.tuner import comparer
from keras_diagwise.tuner.candidates import is_decided
from keras_diagwise.tuner.tuner import Tuner
from tuning.records import write_part
from tuning.workloads import square

BACKEND = keras.backend.backend()

KILLS = 50
MAX_LIFE = 1.6
MAX_CHANGES = 40
"""Limit of the changes of the store before a kill; they decide about four passes."""
PROCESSES = 8
PROBLEMS_EACH = 6
BUDGET = 30.0
BUDGET_RUNS = 3
MAX_SECONDS = 1200.0
"""Time after which a tuning process counts as blocked."""


def small_problems(count: int) -> list[Problem]:
    """Distinct problems that take about a second each."""
    return [square(5 + n // 4, 4 + n % 4, 3, batch=2) for n in range(count)]


def work(store: str, log: str, first: int, count: int, change: int) -> None:
    """Tunes small problems and logs each measured pass right after it is stored.

    Timings are cut short: they do not matter here.

    Args:
        store: the store's folder.
        log: the log file.
        first: the first problem.
        count: number of problems.
        change: number of the store's change right before which it is killed; 0 is none.
    """
    comparer.SECONDS_PER_PASS = 0.02
    if change:
        die_before(store, change)
    with contextlib.closing(Tuner(Store(store))) as tuner, open(log, "a") as lines:
        for problem in small_problems(first + count)[first:]:
            for name in PASSES:
                before = tuner.measured
                decision = tuner.tune(problem, [name])
                if tuner.measured > before:
                    line = [problem.digest, name, decision.passes[name].digest]
                    print(*line, file=lines, flush=True)
                    os.fsync(lines.fileno())


CHANGES = ("os.rename", "os.link", "os.remove")
"""Audit events that change files, besides opening one for writing."""


def die_before(folder: str, change: int) -> None:
    """Kills this process right before its n-th change of a file in a folder."""
    left = change

    def audit(event: str, arguments: tuple) -> None:
        nonlocal left
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (event in CHANGES or writes) and str(arguments[0]).startswith(folder):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)


def start(
    store: Path, log: Path, first: int, count: int, change: int = 0
) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.stress.endurance", "--work"]
    arguments = [str(store), str(log), str(first), str(count), str(change)]
    return subprocess.Popen([*command, *arguments])


def lines_of(log: Path) -> list[tuple[str, ...]]:
    """Logged lines of a process: problem, pass, and digest of the comparison."""
    if not log.exists():
        return []
    return [tuple(line.split()) for line in log.read_text().splitlines()]


class Complaints(logging.Handler):
    """Keeps the package's warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def stored(folder: Path) -> tuple[dict[tuple[str, str], str], list[str]]:
    """Digest of each pass in a store, and what in it can't be read or is unexpected."""
    complaints = Complaints()
    logger = logging.getLogger("keras_diagwise")
    logger.addHandler(complaints)
    try:
        document = Store(folder).document()
    finally:
        logger.removeHandler(complaints)
    found = {
        (decision.problem.digest, name): comparison.digest
        for _, decision in document
        for name, comparison in decision.passes.items()
    }
    files = [path.name for path in folder.rglob("*") if path.is_file()]
    strange = [
        name
        for name in files
        if not TEMPORARY_NAME.fullmatch(name)
        and not LEASE_NAME.fullmatch(name)
        and not DECISION_NAME.fullmatch(name)
        and name != "environment.json"
    ]
    return found, complaints.messages + strange


def kills(count: int = KILLS, problems: int = 80, seed: int = 0) -> dict:
    """Kills a tuning process repeatedly, then checks that a last one decides all.

    Half of the processes die right before one of their first `MAX_CHANGES` changes of
    the store. The others die at a time uniform over `MAX_LIFE` times the time from
    start to the first stored pass, some before it.
    """
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        store, log = Path(folder, "store"), Path(folder, "log")
        begun = time.monotonic()
        process = start(store, log, 0, problems)
        while not lines_of(log):
            time.sleep(0.05)
        seconds_to_first = time.monotonic() - begun
        kill(process)
        killed, moments, unreadable, lost, unlogged = 1, [seconds_to_first], [], 0, []
        changes = []
        while True:
            found, complaints = stored(store)
            logged = {line[:2]: line[2] for line in lines_of(log)}
            unreadable += complaints
            lost += sum(found.get(key) != digest for key, digest in logged.items())
            unlogged.append(len(set(found) - set(logged)))
            if killed == count:
                break
            if killed % 2:
                changes.append(draw.randint(1, MAX_CHANGES))
                process = start(store, log, 0, problems, changes[-1])
                if process.wait(MAX_SECONDS) != -signal.SIGKILL:
                    break
            else:
                process = start(store, log, 0, problems)
                moments.append(draw.uniform(0, MAX_LIFE * seconds_to_first))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(moments[-1])
                    break
                kill(process)
            killed += 1
        before = len(lines_of(log))
        finished = start(store, log, 0, problems).wait(MAX_SECONDS)
        found, complaints = stored(store)
        logged = collections.Counter(line[:2] for line in lines_of(log))
        left, swept = swept_an_hour_later(store)
        return {
            "kills": killed,
            "files_left_by_the_killed": left,
            "files_left_an_hour_later": swept,
            "seconds_to_first_pass": round(seconds_to_first, 2),
            "killed_before_the_change": changes,
            "kill_moments_s": [round(moment, 2) for moment in moments],
            "passes": problems * len(PASSES),
            "passes_measured_between_kills": before,
            "passes_decided_at_the_end": len(found),
            "exit_status_at_the_end": finished,
            "unreadable": unreadable + complaints,
            "finished_passes_lost": lost,
            "finished_passes_measured_twice": sum(n - 1 for n in logged.values()),
            "stored_but_killed_before_the_log": unlogged[-1],
            "seconds": round(time.monotonic() - begun, 1),
        }


def swept_an_hour_later(folder: Path) -> tuple[int, int]:
    """Number of files that killed processes left in a store, before and after the sweep
    of a `tune` an hour later."""

    def left() -> list[Path]:
        patterns = (TEMPORARY_NAME, LEASE_NAME)
        paths = (path for path in folder.rglob("*") if path.is_file())
        return [path for path in paths if any(p.fullmatch(path.name) for p in patterns)]

    before = left()
    for path in before:
        earlier = path.stat().st_mtime - 3700
        os.utime(path, (earlier, earlier))
    Store(folder).sweep(Environment.current())
    return len(before), len(left())


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def processes(
    count: int = PROCESSES, problems_each: int = PROBLEMS_EACH, most=MAX_SECONDS
) -> dict:
    """Tunes overlapping problems in several processes; each shares half of its problems
    with the next."""
    step = problems_each // 2
    with tempfile.TemporaryDirectory() as folder:
        store, begun = Path(folder, "store"), time.monotonic()
        logs = [Path(folder, f"log-{n}") for n in range(count)]
        running = [
            start(store, log, step * n, problems_each) for n, log in enumerate(logs)
        ]
        ended = [wait(process, begun + most) for process in running]
        problems = small_problems(step * (count - 1) + problems_each)
        found, complaints = stored(store)
        environment = Environment.current()
        decisions = [Store(store).get(environment, each) for each in problems]
        measured = collections.Counter(
            line[:2] for log in logs for line in lines_of(log)
        )
        return {
            "processes": count,
            "exit_statuses": ended,
            "problems": len(problems),
            "passes": len(problems) * len(PASSES),
            "passes_decided": sum(
                is_decided(decision, name)
                for decision in decisions
                if decision
                for name in PASSES
            ),
            "passes_in_the_store": len(found),
            "unreadable": complaints,
            "measured_more_than_once": sum(n > 1 for n in measured.values()),
            "seconds": round(time.monotonic() - begun, 1),
        }


def wait(process: subprocess.Popen, until: float) -> int | str:
    """Exit status of a process, or `"blocked"` if it did not end in time."""
    try:
        return process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        kill(process)
        return "blocked"


def budget(seconds: float = BUDGET, runs: int = BUDGET_RUNS) -> dict:
    """Duration of `tune` with more to measure than its budget allows."""
    problems = [square(size, 24, 3) for size in range(20, 80)]
    rows = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            keras_diagwise.decisions.location = folder
            begun = time.monotonic()
            report = keras_diagwise.tune(problems, budget=seconds, verbose=0)
            elapsed = time.monotonic() - begun
            found, complaints = stored(Path(folder))
        rows.append(
            {
                "seconds": round(elapsed, 2),
                "over_budget": round(elapsed / seconds, 3),
                "ended": report.ended,
                "passes_measured": report.measured,
                "passes_in_the_store": len(found),
                "unreadable": complaints,
            }
        )
    return {
        "budget_s": seconds,
        "passes": len(problems) * len(PASSES),
        "most_over_budget": max(row["over_budget"] for row in rows),
        "runs": rows,
    }


PARTS = {"kills": kills, "processes": processes, "budget": budget}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all if none")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        store, log, *numbers = options.work
        return work(store, log, *map(int, numbers))
    for part in options.parts or PARTS:
        figures = PARTS[part]()
        write_part(f"endurance-{BACKEND}.json", part, Environment.current(), figures)
        show(part, figures)
    return None


def show(part: str, figures: dict) -> None:
    table = rich.table.Table(title=part, show_header=False)
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), shown(value))
    rich.console.Console().print(table)


def shown(value) -> str:
    """A figure as short text."""
    if not isinstance(value, list):
        return str(value)
    if len(value) > PROCESSES and all(isinstance(each, float) for each in value):
        return f"{len(value)} from {min(value)} to {max(value)}"
    return "\n".join(map(str, value)) or "none"


if __name__ == "__main__":
    main()
