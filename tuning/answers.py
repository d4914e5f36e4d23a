"""Processes that answer requests, by lines of JSON: the suite's, and those of the
campaign on a GPU."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from tuning.records import child_environment


def answer_requests(answer: Callable[[Any], Any]) -> None:
    """Answers each request that comes in on stdin, on stdout; whatever else is printed
    goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            found = {"answer": answer(json.loads(line))}
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(found), file=answers, flush=True)


class Answering:
    """A process that answers.

    Args:
        backend: Keras's, in the process.
        module: what runs there, with its arguments.
        variables: environment variables of its own.
    """

    def __init__(self, backend: str, *module: str, variables: dict | None = None):
        self._process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**child_environment(backend), **(variables or {})},
        )
        self._lines: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            self._lines.put(line)
        self._lines.put(None)

    def ask(self, request: Any, seconds: float | None = None) -> dict:
        """The `answer` to a request, or the `error`.

        Raises:
            TimeoutError: if it takes longer; the process is of no more use.
        """
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        except OSError:
            line = None
        return json.loads(line) if line else {"error": ENDED}

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


ENDED = "the process ended"
