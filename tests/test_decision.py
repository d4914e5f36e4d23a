"""Decisions: which candidate wins, and what of its outcome is kept."""

import datetime
import json

import hypothesis
import pytest
from msgspec.structs import replace

from keras_diagwise.decision import Comparison, Decision, Outcome
from keras_diagwise.precision import STANDARD, STRICT
from keras_diagwise.problem import PASSES
from tests.algorithms.suite import depthwise
from tests.samples import MEASURED, PROBLEM, comparison, decision, documents


def test_the_fastest_sure_candidate_wins():
    """Of the candidates that are surely faster, the fastest wins."""
    outcomes = {
        "native": Outcome(seconds=1.0),
        "direct": Outcome(seconds=0.5, gain=0.9),
        "direct:rows": Outcome(seconds=0.6, gain=1.5),
        "diagonal:8": Outcome(seconds=0.7, gain=1.4),
    }
    measured = Comparison(outcomes, MEASURED)
    assert measured.winner(1.03, PROBLEM) == "direct:rows"
    assert measured.winner(1.5, PROBLEM) == "direct:rows"
    assert measured.winner(1.51, PROBLEM) == "native"


def outcomes_with_errors(native, direct, diagonal):
    return {
        "native": Outcome(seconds=1.0, error=native),
        "direct": Outcome(seconds=0.5, error=direct),
        "diagonal:8": Outcome(seconds=0.25, error=diagonal),
    }


@pytest.mark.parametrize(
    ("errors", "winner"),
    [
        ((1e-7, 2e-7, 1e-3), "direct"),  # as in TF32, which native does not use
        ((1e-3, 2e-7, 1e-3), "diagonal:8"),  # nor is it less than native's here
        ((1e-7, 1e-3, 1e-3), "native"),
        ((1e-7, 2e-7, None), "direct"),  # nobody knows
    ],
)
def test_a_strict_plan_errs_by_rounding(errors, winner):
    """A strict plan errs by rounding, or as native does."""
    measured = Comparison(outcomes_with_errors(*errors), MEASURED)
    whole = Decision(PROBLEM, dict.fromkeys(PASSES, measured))
    assert str(whole.plan(1.03).forward) == "diagonal:8"
    assert str(whole.plan(1.03, precision=STANDARD).forward) == "diagonal:8"
    assert str(whole.plan(1.03, precision=STRICT).forward) == winner


@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.3, 0.4])
def test_sure_failures_outrank_a_time(seconds):
    """Of one measurement, a verification's failure outranks the time that it replaces,
    unless the device may have been too busy, which the time outranks."""
    timed = comparison(native=1.0, direct=seconds)
    ranks = {}
    for failure in ("wrong numbers", "crash", "timeout", "out of memory"):
        outcomes = {**timed.outcomes, "direct": Outcome(failure=failure, excess=9.0)}
        ranks[failure] = replace(timed, outcomes=outcomes).rank
    assert min(ranks["wrong numbers"], ranks["crash"]) > timed.rank
    assert timed.rank > max(ranks["timeout"], ranks["out of memory"])


def test_a_gain_of_nothing_is_no_gain():
    outcomes = {
        "native": Outcome(seconds=1.0),
        "direct": Outcome(seconds=0.1, gain=0.0),
    }
    assert Comparison(outcomes, MEASURED).winner(1.03, PROBLEM) == "native"


def test_memory_limits_hold_for_each_problem():
    """No pass runs by a candidate that only a larger problem has memory for."""
    large = depthwise((28, 28), 65536, (3, 3), batch=64)
    measured = decision(large, native=1.0, direct=0.5, **{"diagonal:65536": 0.1})
    Decision.from_dict(measured.to_dict())
    assert measured.plan(1.03).to_config() == "diagonal:65536"
    small = depthwise((28, 28), 65536, (3, 3), batch=1)
    assert measured.plan(1.03, small).to_config() == "direct"


def test_no_plan_splits_into_thousands():
    """No problem runs by thousands of convolutions."""
    measured = decision(native=1.0, direct=0.5, **{"diagonal:1:split": 0.1})
    assert measured.plan(1.03).to_config() == "diagonal:1:split"
    for channels in (4096, 2**31 - 1):
        wide = depthwise((28, 28), channels, (3, 3), batch=8)
        assert measured.plan(1.03, wide).to_config() == "direct"


def test_kept_numbers_are_the_same():
    """Numbers are the same before and after they are kept."""
    precise = Outcome(seconds=0.123456789, error=1.23456e-7, gain=2)
    assert precise == Outcome(seconds=0.1235, error=1.235e-7, gain=2.0)
    assert Outcome.from_dict(precise.to_dict()) == precise
    least = Comparison({}, MEASURED, roofline=1.23456e-5)
    assert Comparison.from_dict(least.to_dict()) == least


def test_number_notation_makes_no_difference():
    written = '{"seconds": %s}'
    ways = ["1", "1.0", "1e0", "0.1e1", "1.00000000001"]
    found = [Outcome.from_dict(json.loads(written % way)) for way in ways]
    assert {json.dumps(each.to_dict()) for each in found} == {'{"seconds": 1.0}'}


@hypothesis.given(documents())
def test_any_decision_comes_back(one):
    """A decision comes back from JSON, whatever it holds."""
    for _, each in one:
        assert Decision.from_dict(json.loads(json.dumps(each.to_dict()))) == each


def test_a_long_reason_is_cut_and_comes_back():
    outcome = Outcome(failure="exception", reason="why " * 10_000)
    assert outcome.reason.startswith("why why")
    assert len(json.dumps(outcome.to_dict())) < 1000
    assert Outcome.from_dict(outcome.to_dict()) == outcome


@pytest.mark.parametrize("margin", [1.0, 1.03, 2.0])
def test_a_gain_below_the_margin_loses(margin):
    """A candidate that gains less than the margin does not win."""
    for name in PASSES:
        just = decision(passes=[name], native=margin, direct=1.0)
        assert getattr(just.plan(margin), name) == "direct"
        short = decision(passes=[name], native=0.99 * margin, direct=1.0)
        assert getattr(short.plan(margin), name) == "native"


@pytest.mark.parametrize(
    "seconds", [0, 0.0, -1.0, 5e-324, 1e-320, 9e-10, 86401.0, 1.7e308, 2**63]
)
def test_an_impossible_time_is_refused(seconds):
    values = decision(PROBLEM).to_dict()
    outcomes = values["passes"]["forward"]["outcomes"]
    outcomes["direct"]["seconds"] = seconds
    with pytest.raises(ValueError, match="a nanosecond to a day"):
        Decision.from_dict(values)
    values = decision(PROBLEM).to_dict()
    values["passes"]["forward"]["least"] = seconds
    with pytest.raises(ValueError, match="A comparison must have"):
        Decision.from_dict(values)


@pytest.mark.parametrize("name", ["error", "gain", "excess"])
@pytest.mark.parametrize("number", [-1.0, float("nan"), float("inf"), 1e308])
def test_numbers_that_cannot_be_are_refused(name, number):
    values = decision(PROBLEM).to_dict()
    values["passes"]["forward"]["outcomes"]["direct"][name] = number
    with pytest.raises(ValueError, match="An outcome must have"):
        Decision.from_dict(values)


def test_a_future_measurement_is_refused():
    """A measurement in the future is refused.

    It would stay greater than all that is measured from now on.
    """
    ahead = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=2)
    text = ahead.isoformat(timespec="seconds")
    with pytest.raises(ValueError, match="measured by now"):
        decision(PROBLEM, measured=text).check_dates()
    decision(PROBLEM).check_dates()
