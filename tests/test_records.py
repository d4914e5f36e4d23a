"""Records: what an error says of values that are none."""

import pytest

from keras_diagwise.decision import Decision
from keras_diagwise.storage.leases import Lease
from tests.samples import PROBLEM, decision

LEASE = {
    **{"host": "here", "process": 7, "namespace": "a container", "token": "0"},
    **{"time": 1.0, "expires": 2.0},
}


def values_with(name, value):
    values = decision(PROBLEM).to_dict()
    values["passes"]["forward"]["outcomes"]["direct"][name] = value
    return values


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("seconds", 0, r"Expected `float` >= 1e-09 - at `\$\.seconds`"),
        ("seconds", True, r"Expected `float \| null`, got `bool`"),
        ("reason", 3, r"Expected `str`, got `int` - at `\$\.reason`"),
        ("failure", "magic", r"matching regex '\^\(refused\|pruned\|.*crash\)"),
        ("failure", "crash", "a time of a nanosecond to a day, or a failure"),
        ("run", "rm", "unknown field `run`"),
    ],
)
def test_an_error_says_what_is_wrong_where(name, value, said):
    """It names the pass and the candidate, and quotes no more than the outcome."""
    where = "'forward': 'direct': An outcome must have"
    with pytest.raises(ValueError, match=f"{where}.*{said}") as caught:
        Decision.from_dict(values_with(name, value))
    assert "native" not in str(caught.value)


def test_an_error_is_safe_for_a_terminal():
    with pytest.raises(ValueError, match="unknown field") as caught:
        Decision.from_dict(values_with("\x1b[31m" + "x" * 10_000, 1))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2500


def test_an_error_has_a_limited_length():
    with pytest.raises(ValueError, match="A lease must have") as caught:
        Lease.from_dict({**LEASE, "process": "7" * 10_000})
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize("change", [{"process": 0}, {"process": True}, {"more": 1}])
def test_no_lease_is_of_no_process(change):
    assert Lease.from_dict(LEASE).to_dict() == LEASE
    with pytest.raises(ValueError, match="A lease must have"):
        Lease.from_dict({**LEASE, **change})
