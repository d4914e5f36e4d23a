"""A runner in a child process, so that a hang, a crash or exhausted memory leaves this
process alone.

    python -m keras_diagwise.tuner.subprocess_runner FILE_DESCRIPTOR   (the child)
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from threading import current_thread

import keras

from keras_diagwise import backends
from keras_diagwise.algorithms import Algorithm
from keras_diagwise.durations import duration
from keras_diagwise.environment import usable_cores
from keras_diagwise.tuner.roofline import Roofline
from keras_diagwise.tuner.runner import FailedError, FirstRun, Job, PassTask, Runner

SECONDS_TO_START = 120.0
SECONDS_TO_END = 5.0
SECONDS_TO_PREPARE = 600.0
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux
PASSES_DESCRIPTORS = os.name == "posix"
"""Whether a child can be given a pipe and a process group of its own."""


logger = logging.getLogger("keras_diagwise")


class NoChildError(Exception):
    """No child process can be started that computes like this one."""


class SubprocessRunner:
    """A `Runner` in a child process, which is started on first use and again after it
    has ended.

    If none can be started, this process does the work, with one warning.

    Args:
        timeout: longest wait for an answer, in seconds.
        until: the `time.monotonic()` at which to stop in any case, with a
            `TimeoutError`.
    """

    def __init__(self, timeout: float = 60.0, until: float = float("inf")):
        self.timeout = timeout
        self.until = until
        self._child: Child | None = None
        self._here: Runner | None = None

    def compile(self, jobs: Sequence[Job]) -> None:
        """See `Runner.compile`. If a candidate hangs or crashes, all that was compiled
        is lost with the child: `examine` compiles each again, and so finds that one."""
        timeout = self.timeout * (1 + len(jobs) / usable_cores())
        with contextlib.suppress(FailedError):
            self._ask("compile", jobs, timeout=timeout)

    def examine(
        self,
        task: PassTask,
        candidate: Algorithm,
        enough: float = float("inf"),
        timeout: float | None = None,
    ) -> FirstRun:
        """See `Runner.examine`; a hang or crash of a candidate is a failure of its
        first run.

        Args:
            task: the pass.
            candidate: the candidate.
            enough: seconds that a call may take; a slower candidate is not verified.
            timeout: in seconds, if other than the runner's.
        """
        try:
            self._ask("prepare", task, timeout=SECONDS_TO_PREPARE)
            return self._ask("examine", task, candidate, enough, timeout=timeout)
        except FailedError as error:
            return error.first_run

    def time(
        self,
        task: PassTask,
        candidates: Sequence[Algorithm],
        seconds: float,
        min_rounds: int,
        expected: float = 0.0,
    ) -> dict[Algorithm, list[float]]:
        """See `Runner.time`.

        Args:
            task: the pass.
            candidates: what to time.
            seconds: the time after which no further round begins.
            min_rounds: rounds that are run even if they take longer.
            expected: predicted seconds of the whole; the timeout is three times as
                long, plus `timeout`.

        Raises:
            FailedError: if a candidate failed, or they took too long.
        """
        timeout = self.timeout + 3 * expected
        arguments = task, candidates, seconds, min_rounds
        return self._ask("time", *arguments, timeout=timeout)

    def roofline(self, compiler_mode: str, dtype: str) -> Roofline:
        """See `Runner.roofline`."""
        try:
            return self._ask("roofline", compiler_mode, dtype)
        except FailedError:  # for example, since the child died of earlier work
            return self._ask("roofline", compiler_mode, dtype)

    def _ask(self, name: str, *arguments, timeout: float | None = None):
        if self._here is None:
            try:
                child = self._started()
            except NoChildError as error:
                warn_once(str(error))
                self._here = Runner()
        if self._here is not None:
            return getattr(self._here, name)(*arguments)
        try:
            return child.answer(
                (name, *arguments),
                self.timeout if timeout is None else timeout,
                self.until,
            )
        except BaseException:
            if not child.is_idle:  # its next answer would be to an old request
                self.close()
            raise

    def _started(self) -> Child:
        """The running child, or a new one."""
        # Linux ends a child together with the thread that started it.
        if self._child and self._child.runs and self._child.starter is current_thread():
            return self._child
        self.close()
        self._child = Child()
        try:
            self._child.greet(self.until)
        except BaseException:
            self.close()
            raise
        return self._child

    def close(self) -> None:
        """Ends the child."""
        if self._child is not None:
            self._child.end()
            self._child = None


class Child:
    """A process that answers requests, one at a time.

    A request is a method of `Runner` by its name, or a function of a module, and the
    arguments.

    Args:
        variables: environment variables for it alone.

    Attributes:
        starter: the thread that started it.
        is_idle: whether it has answered all that it was asked.

    Raises:
        NoChildError: if it can't be started.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        if not PASSES_DESCRIPTORS:
            raise NoChildError(f"{platform.system()} can't pass a pipe to one")
        self.starter = current_thread()
        self.is_idle = True
        self._connection, theirs = Pipe()
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                child_command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=self._complaints,
                stderr=self._complaints,
                env={**child_environment(), **(variables or {})},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the parent
            )
        except BaseException as error:
            self._connection.close()
            self._complaints.close()
            if isinstance(error, OSError | ValueError | TypeError):
                raise NoChildError(f"{type(error).__name__}: {error}") from error
            raise
        finally:
            theirs.close()

    @property
    def runs(self) -> bool:
        """Whether it can take a request."""
        return self.is_idle and self._process.poll() is None

    def greet(self, until: float) -> None:
        """Waits until it is ready to compute like this process.

        Raises:
            NoChildError: if it fails to start, or computes on another device.
            TimeoutError: if `until` comes first.
        """
        greeting = sys.path, backends.active.flags()
        try:
            theirs = self.answer(greeting, SECONDS_TO_START, until)
        except FailedError as error:
            raise NoChildError(error.first_run.reason) from error
        if theirs != device():
            computes = f"The child computes on {' '.join(theirs)}"
            raise NoChildError(f"{computes}, not on {' '.join(device())}")

    def answer(self, request: tuple, timeout: float, until: float):
        """The answer to a request.

        Raises:
            FailedError: if it ended, raised one, or took longer than `timeout`.
            TimeoutError: if `until` comes first.
        """
        self.is_idle = False
        left = max(0.0, min(timeout, until - time.monotonic()))
        try:
            self._connection.send(request)
            has_answered = self._connection.poll(left)
            answer = self._connection.recv() if has_answered else None
        except (EOFError, OSError) as error:
            raise self._died() from error
        if not has_answered:
            if time.monotonic() >= until:
                raise TimeoutError
            raise FailedError("timeout", f"No answer after {duration(left)}")
        self.is_idle = True
        if isinstance(answer, FailedError):
            raise answer
        return answer

    def _died(self) -> FailedError:
        """The failure of a child that ended, with its last line of output."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_TO_END)
        self._process.kill()  # no-op if it has ended
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        self._complaints.seek(0)
        said = self._complaints.read().decode(errors="replace").strip().splitlines()
        reason = f"The child ended by {how}. {said[-1] if said else ''}"[:300].strip()
        # The system sends SIGKILL to what takes too much memory.
        return FailedError("out of memory" if how == "SIGKILL" else "crash", reason)

    def end(self) -> None:
        """Ends it, even at work, and the processes that compile for it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._connection.close()
        self._complaints.close()


@functools.cache
def warn_once(reason: str) -> None:
    """Warns that candidates are not isolated."""
    logger.warning(
        "keras_diagwise: candidates are measured in this process, since no child "
        "process can be started (%s). One that hangs or crashes ends this process too.",
        reason,
    )


def device() -> tuple[str, str]:
    """The kind and name of the device of this process, after a first computation."""
    backends.active.synchronize(keras.ops.ones(()) + 1)
    known = backends.active.environment()
    return known["device_kind"], known["device_name"]


def child_command(descriptor: int) -> list[str]:
    """The command of a child that is reached over a file descriptor."""
    return [sys.executable, "-m", __name__, str(descriptor)]


def child_environment() -> dict[str, str]:
    """Environment variables with which the child computes like this process."""
    return {
        **os.environ,
        **backends.active.child_variables(),
        "KERAS_BACKEND": keras.backend.backend(),
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "PYTHONSAFEPATH": "1",  # -m would put the working directory first
    }


def serve(connection: Connection) -> None:
    """The child's work: answers requests until the parent is gone."""
    path, flags = connection.recv()
    sys.path[:] = path
    backends.active.set_flags(flags)
    connection.send(device())
    runner = Runner()
    with contextlib.suppress(EOFError):
        while True:
            work, *arguments = connection.recv()
            call = work if callable(work) else getattr(runner, work)
            try:
                answer = call(*arguments)
            except FailedError as error:
                answer = error
            if has_failed(answer):
                device()  # a lost device is lost for this process: a crash
            connection.send(answer)


def has_failed(answer) -> bool:
    """Whether a candidate raised an exception."""
    first_run = answer.first_run if isinstance(answer, FailedError) else answer
    return isinstance(first_run, FirstRun) and first_run.failure is not None


def end_with_parent() -> None:
    """Makes the system end this process with its parent, where supported."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


def main() -> None:
    """Serves the parent that started this process."""
    end_with_parent()
    serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
