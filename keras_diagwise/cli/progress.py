"""How far a command is: a bar on a terminal, a line for each phase elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import rich.console
import rich.progress


class Progress(contextlib.AbstractContextManager):
    """Shows phases one after another on stderr, and leaves nothing on a terminal."""

    def __init__(self) -> None:
        self._console = rich.console.Console(stderr=True)
        self._bar = rich.progress.Progress(
            rich.progress.SpinnerColumn(),
            rich.progress.TextColumn("{task.description:<16}"),
            rich.progress.BarColumn(bar_width=30),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *exception) -> None:
        self._bar.stop()

    @contextlib.contextmanager
    def phase(
        self, description: str, total: float | None = None
    ) -> Iterator[Callable[[float], None]]:
        """A phase of the work.

        Args:
            description: a few words.
            total: how much there is to do, or `None` if that is not known.

        Yields:
            A function that takes how much more is done.
        """
        if not self._console.is_terminal:
            self._console.print(f"{description} …", highlight=False)
        task = self._bar.add_task(description, total=total)
        yield lambda done: self._bar.advance(task, done)
        self._bar.remove_task(task)
