"""The algorithms, one file or folder each, and their names."""

from keras_diagwise.algorithms.algorithm import Algorithm
from keras_diagwise.algorithms.diagonal import Diagonal
from keras_diagwise.algorithms.direct import Direct
from keras_diagwise.algorithms.matmul import Matmul
from keras_diagwise.algorithms.native import Native
from keras_diagwise.algorithms.triton import Triton

ALGORITHMS: dict[str, type[Algorithm]] = {
    algorithm.name: algorithm
    for algorithm in (Native, Direct, Diagonal, Matmul, Triton)
}


def parse(text: str) -> Algorithm:
    """The algorithm named by a text such as `"diagonal:32:split"`.

    Raises:
        ValueError: if it names none.
    """
    name, *parameters = text.split(":")
    if name not in ALGORITHMS:
        raise ValueError(
            f"An algorithm must be one of {', '.join(ALGORITHMS)}, with its parameters "
            f"after colons, such as 'diagonal:32:split'. Received: {text!r}"
        )
    return ALGORITHMS[name].parse(parameters)


def parse_known(text: str) -> Algorithm | None:
    """The algorithm named by a text, or `None` if this version has none of that name,
    as in a decision that another version measured."""
    try:
        return parse(text)
    except ValueError:
        return None


__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Diagonal",
    "Direct",
    "Matmul",
    "Native",
    "Triton",
    "parse",
    "parse_known",
]
