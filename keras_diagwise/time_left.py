"""How much longer a progress bar takes."""

from __future__ import annotations

import rich.progress
from rich.text import Text

ESTIMATE_PERIOD = 3600.0
"""Seconds over which the pace is taken: with rich's 30, a pass that is measured for
longer leaves no pace to tell the time by."""


class TimeLeftColumn(rich.progress.ProgressColumn):
    """The time left, in words; nothing as long as it can't be told."""

    max_refresh = 0.5

    def render(self, task: rich.progress.Task) -> Text:
        if task.total is None or task.time_remaining is None or task.finished:
            return Text()
        minutes, seconds = divmod(round(task.time_remaining), 60)
        return Text(f"{minutes}:{seconds:02} left", style="progress.remaining")
