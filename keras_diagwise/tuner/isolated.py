"""A workbench in a child process: what hangs, crashes or runs out of memory there
takes nothing down here.

    python -m keras_diagwise.tuner.isolated FILE_DESCRIPTOR   (the child)
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any

import keras

from keras_diagwise import backends
from keras_diagwise.algorithms import Algorithm
from keras_diagwise.tuner.limits import Limits
from keras_diagwise.tuner.workbench import Finding, Task, Workbench

SECONDS_TO_START = 120.0
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


class ChildDiedError(Exception):
    """The child ended before it answered."""


class IsolatedWorkbench:
    """A `Workbench` in a child process, which is started when it is first needed
    and again after it ended.

    Args:
        patience: seconds after which an answer is no longer waited for.
        until: the `time.monotonic()` at which to stop in any case, by
            `TimeoutError`.
    """

    def __init__(self, patience: float = 60.0, until: float = float("inf")):
        self.patience = patience
        self.until = until
        self._child: subprocess.Popen | None = None
        self._connection: Connection | None = None
        self._complaints: Any = None

    def examine(
        self,
        task: Task,
        candidate: Algorithm,
        enough: float = float("inf"),
        patience: float | None = None,
    ) -> Finding:
        """As a workbench; a candidate that hangs or crashes is a finding.

        Args:
            task: the pass.
            candidate: the candidate.
            enough: seconds that a call may take; what takes longer is not verified.
            patience: seconds to wait, if fewer than for other work.
        """
        try:
            return self._ask("examine", task, candidate, enough, patience=patience)
        except ChildDiedError as error:
            killed = "SIGKILL" in str(error)  # so the system ends what takes too much
            failure = "out of memory" if killed else "crash"
            return Finding(failure=failure, reason=str(error))
        except TimeoutError as error:
            if time.monotonic() >= self.until:
                raise
            return Finding(failure="timeout", reason=str(error))

    def time(
        self,
        task: Task,
        candidates: Sequence[Algorithm],
        seconds: float,
        least_rounds: int,
    ) -> dict[Algorithm, list[float]]:
        """As a workbench.

        Raises:
            ChildDiedError: if the child did.
            TimeoutError: if it did not answer in time.
        """
        return self._ask("time", task, candidates, seconds, least_rounds)

    def limits(self, compiler_mode: str, dtype: str) -> Limits:
        """As a workbench."""
        return self._ask("limits", compiler_mode, dtype)

    def _ask(self, *request, patience: float | None = None):
        connection = self._connected()
        try:
            connection.send(request)
            return self._answer(self.patience if patience is None else patience)
        except (EOFError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise ChildDiedError(self._last_words()) from error

    def _answer(self, patience: float):
        left = min(patience, self.until - time.monotonic())
        assert self._connection is not None
        if not self._connection.poll(max(0.0, left)):
            self.close()
            raise TimeoutError(f"No answer after {max(0.0, left):.0f} s")
        return self._connection.recv()

    def _connected(self) -> Connection:
        if self._child is not None and self._child.poll() is None:
            assert self._connection is not None
            return self._connection
        self.close()
        self._connection, theirs = Pipe()
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=self._complaints,
            stderr=self._complaints,
            env=child_environment(),
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C is for the parent
        )
        theirs.close()
        try:
            self._connection.send((sys.path, backends.active.flags()))
            self._answer(SECONDS_TO_START)
        except EOFError as error:
            raise ChildDiedError(self._last_words()) from error
        return self._connection

    def _last_words(self) -> str:
        """How the child ended, and what it said last."""
        assert self._child is not None
        code = self._child.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        self._complaints.seek(0)
        said = self._complaints.read().decode(errors="replace").strip().splitlines()
        return f"The child ended by {how}. {said[-1] if said else ''}"[:300].strip()

    def close(self) -> None:
        """Ends the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
        for held in (self._connection, self._complaints):
            if held is not None:
                held.close()
        self._connection = self._complaints = None


def child_environment() -> dict[str, str]:
    """The environment variables under which the child computes as this process."""
    return {
        **os.environ,
        **backends.active.child_variables(),
        "KERAS_BACKEND": keras.backend.backend(),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


def serve(connection: Connection) -> None:
    """The child's work: answers requests until the parent is gone."""
    path, flags = connection.recv()
    sys.path[:] = path
    backends.active.set_flags(flags)
    connection.send("ready")
    workbench = Workbench()
    with contextlib.suppress(EOFError):
        while True:
            name, *arguments = connection.recv()
            connection.send(getattr(workbench, name)(*arguments))


def end_with_parent() -> None:
    """Lets the system end this process with its parent, where it can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


if __name__ == "__main__":
    end_with_parent()
    serve(Connection(int(sys.argv[1])))
