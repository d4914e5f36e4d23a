"""Limits of memory and compile time, for algorithms that a file names."""

from keras_diagwise import algorithms
from keras_diagwise.problem import Problem

MAX_OPERATIONS = 512
"""A candidate with more would take too long to compile."""


def sane_bytes(problem: Problem) -> int:
    """Most bytes that a candidate may move: more is a mistake or malicious."""
    return max(2**30, 8 * problem.least_bytes)


def can_serve(algorithm: str, problem: Problem) -> bool:
    """Whether this version has an algorithm that can compute a problem, which may
    differ from the one measured, within sane memory and compile time."""
    parsed = algorithms.parse_known(algorithm)
    if parsed is None:
        return False
    try:
        parsed.check(problem)
    except ValueError:
        return False
    work = parsed.work(problem)
    sane = work.bytes <= sane_bytes(problem) and work.operations <= MAX_OPERATIONS
    return sane and parsed.refusal(problem) is None
