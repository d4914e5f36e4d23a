"""Processes that answer requests as lines of JSON, for the suite and GPU campaign."""

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
    """Answers each request from stdin on stdout; everything else printed goes to
    stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            found = {"answer": answer(json.loads(line))}
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(found), file=answers, flush=True)


class Answering:
    """A process that answers requests.

    Args:
        backend: Keras's backend in the process.
        module: the module to run, with its arguments.
        variables: environment variables set for the process only.
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
            TimeoutError: if it takes longer; the process is then unusable.
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
