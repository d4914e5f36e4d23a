"""Documents: how they merge, come back from their files, and what is refused."""

import copy
import dataclasses
import json

import hypothesis
import pytest
from msgspec.structs import replace

from keras_diagwise.decision import FAILURES, Comparison, Decision, Outcome
from keras_diagwise.problem import PASSES
from keras_diagwise.storage import document as document_module
from keras_diagwise.storage.document import MAX_BYTES, Document
from tests.algorithms.suite import depthwise
from tests.samples import (
    ELSEWHERE,
    HERE,
    MEASURED,
    PROBLEM,
    comparison,
    decision,
    document,
    documents,
    with_batch,
)

LATER = "2026-02-02T03:04:05+00:00"


@hypothesis.given(documents())
def test_merging_is_idempotent(one):
    assert one | one == one
    assert one | Document() == one == Document() | one


@hypothesis.given(documents(), documents())
def test_merging_is_commutative(one, other):
    assert one | other == other | one


@hypothesis.given(documents(), documents(), documents())
def test_merging_is_associative(one, other, third):
    assert (one | other) | third == one | (other | third)


@hypothesis.given(documents(), documents())
def test_a_merge_never_mixes_two_runs(one, other):
    """A merge never mixes two runs of a pass."""
    for environment, merged in one | other:
        for name, kept in merged.passes.items():
            sources = [each.get(environment, merged.problem) for each in (one, other)]
            known = [each.passes.get(name) for each in sources if each]
            assert kept in known
            assert kept.rank == max(each.rank for each in known if each)


@hypothesis.given(documents())
def test_a_document_comes_back_from_its_text(one):
    back = Document.from_text(one.to_text())
    assert list_of(back) == list_of(one)
    assert back.to_text() == one.to_text()


def list_of(document):
    return sorted(document, key=lambda pair: (pair[0].digest, pair[1].problem.digest))


@hypothesis.given(documents(), documents())
def test_equal_documents_have_equal_texts(one, other):
    assert (one | other).to_text() == (other | one).to_text()


def test_a_document_comes_back_from_its_file(tmp_path):
    one = document(HERE, decision(), decision(depthwise((9,), 8, (3,))))
    one.write(tmp_path / "document.json")
    assert Document.read(tmp_path / "document.json") == one


def test_more_candidates_outrank_later_times():
    """More candidates go before a later time, and that before an earlier one."""
    more = decision(native=1.0, direct=0.5, **{"direct:rows": 0.4})
    later, earlier = decision(measured=LATER), decision(measured=MEASURED, native=2.0)
    assert later | earlier == later == earlier | later
    assert more | later == more == later | more


def test_passes_of_two_decisions_are_merged():
    merged = decision(passes=PASSES[:1]) | decision(passes=PASSES[1:])
    assert merged == decision()


@hypothesis.given(documents())
def test_numbers_are_kept_to_four_digits(one):
    for _, each in one:
        for passed in each.passes.values():
            for outcome in passed.outcomes.values():
                assert Outcome.from_dict(outcome.to_dict()) == outcome
    precise = Outcome(seconds=0.123456789)
    assert Outcome.from_dict(precise.to_dict()).seconds == 0.1235


def test_every_failure_comes_back():
    for failure in FAILURES:
        outcome = Outcome(failure=failure, reason="because")
        assert Outcome.from_dict(outcome.to_dict()) == outcome


# What is refused.


def values_of(one):
    return json.loads(one.to_text())


def changed(change):
    """The text of a document with one change in its only decision."""
    values = values_of(document(HERE, decision()))
    change(values["environments"][0]["decisions"][0], values)
    return json.dumps(values)


def set_at(*path, to):
    def change(decision, values):
        where = decision
        for name in path[:-1]:
            where = where[name]
        where[path[-1]] = to

    return changed(change)


def of_candidate(name, problem=PROBLEM):
    measured = Comparison(
        {"native": Outcome(seconds=1.0), name: Outcome(seconds=0.1)}, MEASURED
    )
    return document(HERE, Decision(problem, {"forward": measured})).to_text()


HOSTILE = {
    "no object": "[]",
    "nothing": "",
    "a number": "3",
    "no JSON": "{",
    "another format": '{"format": "else", "version": 1, "environments": []}',
    "a later version": changed(lambda _, values: values.update(version=2)),
    "no environments": changed(lambda _, values: values.pop("environments")),
    "environments by name": changed(lambda _, values: values.update(environments={})),
    "an environment of nothing": changed(
        lambda _, values: values["environments"].append(None)
    ),
    "an environment that lacks a field": changed(
        lambda _, values: values["environments"][0]["environment"].pop("cores")
    ),
    "an environment with a list in it": changed(
        lambda _, values: values["environments"][0]["environment"]["flags"].update(a=[])
    ),
    "a path for a problem": set_at("problem", to="../../../etc/passwd"),
    "a path in a problem": set_at("problem", "padding", to="../../../etc/passwd"),
    "a path for a dtype": set_at("problem", "dtype", to="/etc/passwd"),
    "a path for a data format": set_at("problem", "data_format", to="../x"),
    "a path among the fields": set_at("../../x", to="y"),
    "a problem of a negative size": set_at("problem", "groups", to=-1),
    "a problem of no groups": set_at("problem", "groups", to=0),
    "a problem of half a group": set_at("problem", "groups", to=0.5),
    "a problem of a true batch": set_at("problem", "batch", to=True),
    "a problem of endless size": set_at("problem", "groups", to=10**400),
    "a problem of too many axes": set_at("problem", "spatial_shape", to=[3] * 4),
    "a problem of unequal axes": set_at("problem", "strides", to=[1]),
    "a problem of nested lists": set_at("problem", "strides", to=[[1], [1]]),
    "a problem of text": set_at("problem", "kernel_size", to="33"),
    "a problem of nothing": set_at("problem", to=None),
    "passes of another name": set_at("passes", "../up", to={}),
    "passes in a list": set_at("passes", to=["forward"]),
    "a pass of nothing": set_at("passes", "forward", to=None),
    "a time before all times": set_at("passes", "forward", "measured", to=""),
    "a time that is a path": set_at("passes", "forward", "measured", to="../../x"),
    "a time of another zone": set_at(
        "passes", "forward", "measured", to="2026-01-02T03:04:05+09:00"
    ),
    "a time and more": set_at("passes", "forward", "measured", to=f"{MEASURED} x"),
    "a time that is no text": set_at("passes", "forward", "measured", to=3),
    "outcomes in a list": set_at("passes", "forward", "outcomes", to=[1]),
    "an outcome of nothing": set_at("passes", "forward", "outcomes", "native", to=None),
    "an outcome with more": set_at(
        "passes", "forward", "outcomes", "native", to={"seconds": 1.0, "run": "rm"}
    ),
    "an outcome without time and failure": set_at(
        "passes", "forward", "outcomes", "native", to={"error": 1.0}
    ),
    "an unknown failure": set_at(
        "passes", "forward", "outcomes", "native", to={"failure": "magic"}
    ),
    "a time of NaN": set_at(
        "passes", "forward", "outcomes", "native", "seconds", to=float("nan")
    ),
    "an infinite time": set_at(
        "passes", "forward", "outcomes", "native", "seconds", to=float("inf")
    ),
    "a negative time": set_at(
        "passes", "forward", "outcomes", "native", "seconds", to=-1.0
    ),
    "a true time": set_at(
        "passes", "forward", "outcomes", "native", "seconds", to=True
    ),
    "a time in words": set_at(
        "passes", "forward", "outcomes", "native", "seconds", to="1"
    ),
    "a time of 400 digits": set_at(
        "passes", "forward", "outcomes", "native", "seconds", to=10**400
    ),
    "a path for a candidate": of_candidate("../../x"),
    "code for a candidate": of_candidate("__import__('os')"),
    "a partition above the channels": of_candidate("diagonal:128"),
    "terabytes": of_candidate(
        "diagonal:65536", depthwise((4, 4), 65536, (31, 31), batch=1)
    ),
    "terabytes, split": of_candidate(
        "diagonal:65536:split", depthwise((4, 4), 65536, (31, 31), batch=1)
    ),
    "thousands of candidates": set_at(
        "passes",
        "forward",
        "outcomes",
        to={f"gone:{n}": {"failure": "crash"} for n in range(5000)},
    ),
    "a candidate of a long name": set_at(
        "passes", "forward", "outcomes", "x" * 10_000, to={"failure": "crash"}
    ),
    "an environment of a long name": changed(
        lambda _, values: values["environments"][0]["environment"].update(
            device_name="x" * 2**20
        )
    ),
    "a name twice": set_at("problem", "batch", to=8).replace(
        '"batch": 8', '"batch": 8, "batch": 9'
    ),
    "the environments twice": document(HERE).to_text()[:-2] + ', "environments": []}',
    "deep nesting": "[" * 1_000_000,
    "deep nesting inside": '{"format":' + '{"a":' * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_is_refused(name, tmp_path):
    """A hostile document is refused with a reason."""
    path = tmp_path / "hostile.json"
    path.write_text(HOSTILE[name])
    with pytest.raises(ValueError, match=r"hostile\.json must be a document"):
        Document.read(path)


def test_what_is_not_text_is_refused(tmp_path):
    (tmp_path / "hostile.json").write_bytes(b"\xff\xfe\x00" * 100)
    with pytest.raises(ValueError, match=r"hostile\.json must be a document"):
        Document.read(tmp_path / "hostile.json")


def test_too_many_decisions_are_refused(monkeypatch, tmp_path):
    """More decisions than can be kept at once are refused.

    They are refused where they are read and where they are written, so nobody gets a
    file in vain.
    """
    monkeypatch.setattr(document_module, "MAX_DECISIONS", 2)
    two = document(HERE, *(decision(with_batch(n)) for n in (1, 2)))
    assert Document.from_text(two.to_text()) == two
    two.write(tmp_path / "two.json")
    three = two | document(HERE, decision(with_batch(3)))
    with pytest.raises(ValueError, match="more than 2 decisions"):
        Document.from_text(three.to_text())
    with pytest.raises(ValueError, match="Received: 3 decisions"):
        three.write(tmp_path / "three.json")
    assert not (tmp_path / "three.json").exists()


def test_gigabytes_are_refused_unread(tmp_path):
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=rf"{MAX_BYTES} bytes. Received: {2**40}"):
        Document.read(path)


def test_a_name_that_is_twice_there_is_named():
    with pytest.raises(
        ValueError, match=r"a name twice. Received: \['seconds', 'seconds'\]"
    ):
        Document.from_text('{"a": [{"seconds": 1.0, "seconds": 2.0}]}')


def test_terabytes_are_named():
    with pytest.raises(ValueError, match=r"would need 15\d{3}\.\d GiB for 1×4×4×65536"):
        Document.from_text(HOSTILE["terabytes"])


def test_a_later_versions_document_is_named():
    text = document(HERE).to_text().replace('"version": 1', '"version": 2', 1)
    with pytest.raises(ValueError, match="later version of keras-diagwise"):
        Document.from_text(text)


def test_failed_candidates_may_be_unknown():
    """A failed candidate need not be known.

    It never runs, and an algorithm that is gone must not make a document void.
    """
    gone = Comparison(
        {"native": Outcome(seconds=1.0), "gone": Outcome(failure="crash")}, MEASURED
    )
    one = document(HERE, Decision(PROBLEM, {"forward": gone}))
    assert Document.from_text(one.to_text()) == one


@pytest.mark.parametrize("name", ["magic", "magic:3", "matmul:better", "diagonal:0"])
def test_unknown_candidates_are_kept_and_never_serve(name):
    """A timed candidate that this version does not know is kept, and never serves.

    A later version may have measured it, with whom a store is shared.
    """
    text = of_candidate(name)
    ((environment, decision),) = Document.from_text(text)
    assert all(name in each.seconds for each in decision.passes.values())
    assert name not in str(decision.plan(1.0))
    again = Document.from_text(Document.of(environment, [decision]).to_text())
    assert again == Document.from_text(text)


def test_what_this_version_knows_outranks_what_it_does_not():
    """A comparison with more of this version's candidates is kept, though another
    version's has more in all."""
    theirs = Comparison(
        {each: Outcome(seconds=1.0) for each in ("native", "new:1", "new:2")}, MEASURED
    )
    ours = comparison(native=1.0, direct=0.5)
    for first, second in ((theirs, ours), (ours, theirs)):
        merged = Decision(PROBLEM, {"forward": first}) | Decision(
            PROBLEM, {"forward": second}
        )
        assert merged.passes["forward"] == ours


def test_duplicates_are_merged():
    """Environments and decisions that occur twice are merged."""
    values = values_of(document(HERE, decision(passes=PASSES[:1])))
    more = values_of(document(HERE, decision(passes=PASSES[1:])))
    both = copy.deepcopy(values)
    both["environments"] += more["environments"]
    assert Document.from_text(json.dumps(both)) == document(HERE, decision())
    values["environments"][0]["decisions"] *= 2
    twice = Document.from_text(json.dumps(values))
    assert twice == document(HERE, decision(passes=PASSES[:1]))


def test_decisions_of_one_problem_are_merged():
    """Several decisions of a problem in one list are merged."""
    values = values_of(document(HERE, decision(passes=PASSES[:1])))
    more = values_of(document(HERE, decision(passes=PASSES[1:])))
    values["environments"][0]["decisions"] += more["environments"][0]["decisions"]
    assert Document.from_text(json.dumps(values)) == document(HERE, decision())


# What is found.


def test_a_document_finds_its_decisions():
    one = document(HERE, decision(with_batch(4)), decision(with_batch(64)))
    assert len(one) == 2
    assert one.environments() == [HERE]
    assert one.get(HERE, with_batch(4)) == decision(with_batch(4))
    assert one.get(HERE, PROBLEM) is None
    assert one.get(ELSEWHERE, with_batch(4)) is None
    assert one.nearest(HERE, PROBLEM).problem == with_batch(4)
    assert one.nearest(ELSEWHERE, PROBLEM) is None
    other_kernel = dataclasses.replace(PROBLEM, kernel_size=(5, 5))
    assert one.nearest(HERE, other_kernel) is None


def test_native_serves_unless_surely_beaten():
    """Native serves where the winner was overruled or is not surely faster."""
    fast = comparison(native=1.0, direct=0.5)
    assert fast.winner(1.03, PROBLEM) == "direct"
    overruled = replace(fast, overruled="the whole step was slower")
    assert overruled.winner(1.03, PROBLEM) == "native"
    unsure = Comparison(
        {**fast.outcomes, "direct": Outcome(seconds=0.5, gain=0.99)}, MEASURED
    )
    assert unsure.winner(1.03, PROBLEM) == "native"


def test_the_fastest_serves_if_native_failed():
    failed = Comparison(
        {"native": Outcome(failure="wrong numbers"), "direct": Outcome(seconds=0.5)},
        MEASURED,
    )
    assert failed.winner(1.03, PROBLEM) == "direct"
    unknown = comparison(direct=0.5)
    assert unknown.winner(1.03, PROBLEM) == "native"
