"""Hostile documents cost little, print nothing strange, and write nowhere else;
`python -m tests.storage.hostile` tries 500 up to the limit."""

import pytest

from tests.storage.hostile import (
    KINDS,
    MAX_MEMORY,
    import_in_a_process,
    is_unprintable,
    made,
)


@pytest.mark.parametrize("kind", KINDS)
def test_an_import_refuses_or_takes_it_quietly(kind):
    cost = import_in_a_process(made(kind, seed=1, size=2**16))
    assert cost.faults == []
    assert cost.memory < MAX_MEMORY


def test_what_a_terminal_would_obey_is_seen():
    assert is_unprintable("\x1b[31m")
    assert not is_unprintable("a table │ of ×\n")
