"""The package's version, and the numbers in any version."""

import re

__version__ = "0.1.0"


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparison: at most three."""
    begin = re.match(r"\d{1,9}(\.\d{1,9}){0,2}", version)
    return tuple(map(int, begin[0].split("."))) if begin else ()
