"""Progress of a command: a bar on a terminal, a line for each phase elsewhere."""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import rich.progress

from keras_diagwise_cli.terminal.console import TimeLeftColumn, console


class Progress(contextlib.AbstractContextManager):
    """Shows phases one after another on stderr; a terminal is left clean.

    A Ctrl-C that a library swallows ends the phase at its next advance: compiled
    code of JAX 0.10 swallows it occasionally.
    """

    def __init__(self) -> None:
        self._interrupted = False
        self._handler_before: Any = None
        self._console = console(stderr=True)
        self._bar = rich.progress.Progress(
            rich.progress.SpinnerColumn(),
            rich.progress.TextColumn("{task.description:<20}"),
            rich.progress.BarColumn(bar_width=24),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeElapsedColumn(),
            TimeLeftColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Progress:
        if threading.current_thread() is threading.main_thread():
            self._handler_before = signal.signal(signal.SIGINT, self._interrupt)
        self._bar.start()
        return self

    def __exit__(self, *exception) -> None:
        self._bar.stop()
        if self._handler_before is not None:
            signal.signal(signal.SIGINT, self._handler_before)

    def _interrupt(self, *signal_and_frame) -> None:
        self._interrupted = True
        raise KeyboardInterrupt

    def _advance(self, task: rich.progress.TaskID, done: float) -> None:
        self._bar.advance(task, done)
        if self._interrupted:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def phase(
        self, description: str, total: float | None = None
    ) -> Iterator[Callable[[float], None]]:
        """A phase of the work.

        Args:
            description: a few words.
            total: amount of work, or `None` if unknown.

        Yields:
            A function that advances by an amount of work.
        """
        if not self._console.is_terminal:
            self._console.print(f"{description} …")
        task = self._bar.add_task(description, total=total)
        yield functools.partial(self._advance, task)
        self._bar.remove_task(task)
