"""Durations as text, to three digits."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A duration in seconds, milliseconds or microseconds, such as `12.3 ms`."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= 0.9995 * scale:  # which is 1 to three digits
            return f"{three_digits(seconds / scale)} {unit}"
    return f"{three_digits(seconds / 1e-6)} µs"


def milliseconds(seconds: float | None) -> str:
    """The number of milliseconds, for a column of which this is the unit."""
    return "-" if seconds is None else three_digits(1e3 * seconds)


def three_digits(number: float) -> str:
    """A number to three digits, or as a whole number if it has more."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
