"""The time budget of tuning. Imports no Keras, so that the command checks it first."""

from __future__ import annotations

import string

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def standardize_budget(budget: float | str | None) -> float | None:
    """`budget` in seconds.

    Raises:
        ValueError: if it is not a positive number, with or without a unit.
    """
    if budget is None:
        return None
    try:
        number, unit = split_budget(budget)
        seconds = float(number) * UNITS[unit]
    except (KeyError, TypeError, ValueError):
        seconds = 0.0
    if not seconds > 0:
        raise ValueError(
            "`budget` must be positive: seconds, or a text such as '30s', '5m' or "
            f"'1h'. Received: budget={budget!r}"
        )
    return seconds


def split_budget(budget: float | str) -> tuple[float | str, str]:
    """The number and the unit of a budget."""
    if not isinstance(budget, str):
        return budget, "s"
    text = budget.strip()
    number = text.rstrip(string.ascii_lowercase)
    return number, text[len(number) :]
