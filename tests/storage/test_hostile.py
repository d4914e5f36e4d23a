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
def test_an_import_is_quiet_and_cheap(kind):
    """An import refuses or takes any document quietly, and within the memory limit."""
    cost = import_in_a_process(made(kind, seed=1, size=2**16))
    assert cost.faults == []
    assert cost.memory < MAX_MEMORY


def test_what_a_terminal_would_obey_is_seen():
    assert is_unprintable("\x1b[31m")
    assert not is_unprintable("a table │ of ×\n")
