"""Sources of a plan: which decision speaks for a problem, how much it must promise."""

import dataclasses
import logging
import os

import hypothesis
import pytest

from keras_diagwise import Plan
from keras_diagwise.algorithms import ALGORITHMS
from keras_diagwise.decision import Comparison, Decision, Outcome
from keras_diagwise.planning import planner as planner_module
from keras_diagwise.planning.planner import SHIPPED, Planner, shipped_document
from keras_diagwise.problem import PASSES
from keras_diagwise.storage.document import Document
from keras_diagwise.storage.store import Store
from tests.samples import (
    ELSEWHERE,
    HERE,
    MEASURED,
    PROBLEM,
    UPDATED,
    comparison,
    decision,
    document,
    documents,
    with_batch,
)
from tests.threads import in_threads

NOTHING = Document()


def answer(problem, store=NOTHING, shipped=NOTHING, environment=HERE):
    return Planner(store, shipped).plan(problem, environment)


def in_store(location, one):
    store = Store(location)
    store.merge(one)
    return store


def test_nothing_measured_is_native():
    found = answer(PROBLEM)
    assert (found.plan, found.source, found.decision) == (Plan(), "native", None)


@pytest.mark.parametrize(
    ("environment", "problem", "gain", "source", "chosen"),
    [
        (HERE, PROBLEM, 1.02, "decision", "native"),
        (HERE, PROBLEM, 1.04, "decision", "direct"),
        (UPDATED, PROBLEM, 1.1, "other versions", "native"),
        (UPDATED, PROBLEM, 1.3, "other versions", "direct"),
        (HERE, with_batch(4), 1.72, "nearest", "native"),
        (HERE, with_batch(4), 1.82, "nearest", "direct"),
        (HERE, with_batch(2), 2.45, "nearest", "native"),
        (HERE, with_batch(2), 2.55, "nearest", "direct"),
        (HERE, with_batch(16), 1.35, "nearest", "native"),
        (HERE, with_batch(16), 1.4, "nearest", "direct"),
        (ELSEWHERE, PROBLEM, 1.9, "other device", "native"),
        (ELSEWHERE, PROBLEM, 2.1, "other device", "direct"),
    ],
)
def test_further_sources_need_larger_gains(environment, problem, gain, source, chosen):
    """The further the source, the larger the gain that it takes to leave native."""
    measured = document(environment, decision(native=gain, direct=1.0))
    found = answer(problem, shipped=measured)
    assert found.source == source
    assert found.plan == Plan(chosen, chosen, chosen)


def test_each_pass_is_chosen_for_itself():
    measured = Decision(
        PROBLEM,
        {
            "forward": comparison(native=1.0, direct=2.0),
            "input_gradient": comparison(native=1.0, direct=0.5),
            "kernel_gradient": comparison(
                native=1.0, direct=0.9, **{"direct:rows": 0.2}
            ),
        },
    )
    found = answer(PROBLEM, document(HERE, measured))
    assert found.plan == Plan("native", "direct", "direct:rows")
    assert found.decision.gain(found.plan) == pytest.approx(3 / 1.7)


def test_an_unmeasured_pass_is_native():
    found = answer(PROBLEM, document(HERE, decision(passes=["kernel_gradient"])))
    assert found.plan == Plan(kernel_gradient="direct")
    assert found.decision.gain(found.plan) is None


def times(**gains):
    """A decision whose passes were faster by `direct`, each by its own gain."""
    passes = {n: comparison(native=gain, direct=1.0) for n, gain in gains.items()}
    return Decision(PROBLEM, passes)


def test_missing_passes_come_from_shipped(tmp_path):
    """A pass that the store lacks comes from the shipped decisions."""
    stored = times(forward=1.01)
    shipped = times(forward=9.0, input_gradient=1.04, kernel_gradient=1.02)
    store = in_store(tmp_path, document(HERE, stored))
    found = answer(PROBLEM, store, document(HERE, shipped))
    assert found.plan == Plan("native", "direct", "native")
    assert (found.source, found.decision) == ("decision", stored)


@pytest.mark.parametrize("gain", [1.1, 1.3, 1.9, 2.1])
def test_each_pass_needs_its_sources_margin(gain, tmp_path, caplog):
    """Each pass must gain the margin of its own source.

    Here the forward pass is of this very problem, one gradient of other versions, and
    the other of another device.
    """
    stored = document(HERE, times(forward=1.04))
    stored |= document(UPDATED, times(forward=9.0, input_gradient=gain))
    shipped = document(
        ELSEWHERE, times(forward=9.0, input_gradient=9.0, kernel_gradient=gain)
    )
    planner = Planner(in_store(tmp_path, stored), shipped)
    found = planner.plan(PROBLEM, HERE)
    assert found.plan == Plan(
        "direct",
        "direct" if gain > 1.2 else "native",
        "direct" if gain > 2.0 else "native",
    )
    assert found.source == "decision"
    planner.plan(PROBLEM, HERE)
    assert len(caplog.records) == 1


def test_the_first_decision_tells_the_source(caplog):
    stored = document(UPDATED, times(forward=9.0))
    shipped = document(ELSEWHERE, decision(native=9.0, direct=1.0))
    found = answer(PROBLEM, stored, shipped)
    assert found.source == "other versions"
    assert found.plan == Plan("direct", "direct", "direct")


def test_no_candidates_counts_as_measured():
    """A pass without candidates counts as measured.

    It is native, whatever a further source says.
    """
    nothing = Comparison({"native": Outcome(seconds=1.0)}, MEASURED)
    stored = Decision(PROBLEM, {"forward": nothing})
    found = answer(PROBLEM, document(HERE, stored), document(HERE, decision()))
    assert found.plan == Plan("native", "direct", "direct")


def test_no_further_source_is_asked(tmp_path, monkeypatch):
    """No source is asked beyond the one that answers."""
    store = in_store(tmp_path, document(HERE, decision()))

    def fail(*arguments):
        raise AssertionError("asked")

    for name in ("environments", "nearest", "document"):
        monkeypatch.setattr(Store, name, fail)
    assert Planner(store, NOTHING).plan(PROBLEM, HERE).source == "decision"


@hypothesis.given(documents())
def test_import_gives_the_exported_plans(tmp_path_factory, one):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda file: None)
        here = in_store(tmp_path_factory.mktemp("here"), one)
        text = here.document().to_text()
        there = in_store(tmp_path_factory.mktemp("there"), Document.from_text(text))
    problems = [problem for each in one.entries.values() for problem in each]
    for asked in {*problems, *map(with_batch, (None, 5, 8))}:
        for environment in (HERE, UPDATED, ELSEWHERE):
            before = answer(asked, here, NOTHING, environment)
            assert answer(asked, there, NOTHING, environment) == before
            assert answer(asked, one, NOTHING, environment) == before


def test_unknown_batch_needs_no_larger_gain():
    """An unknown batch needs no larger gain than the problem itself.

    TensorFlow traces a step with it, though the layer was measured.
    """
    measured = document(HERE, decision(native=1.1, direct=1.0))
    found = answer(with_batch(None), measured)
    assert (found.source, found.plan) == ("nearest", Plan("direct", "direct", "direct"))
    other = dataclasses.replace(with_batch(None), groups=63)
    assert answer(other, measured).plan == Plan()


def test_the_store_goes_before_shipped():
    """The store goes before the shipped decisions, and both serve."""
    stored, shipped = decision(direct=0.9, native=1.0), decision()
    other = decision(with_batch(64))
    found = answer(PROBLEM, document(HERE, stored), document(HERE, shipped, other))
    assert found.decision == stored
    found = answer(with_batch(64), document(HERE, stored), document(HERE, other))
    assert (found.decision, found.source) == (other, "decision")


def test_the_own_device_goes_before_another():
    own, other = decision(native=1.0, direct=0.9), decision()
    for order in ((HERE, own), (ELSEWHERE, other)), ((ELSEWHERE, other), (HERE, own)):
        shipped = document(*order[0]) | document(*order[1])
        assert answer(PROBLEM, shipped=shipped).decision == own


@pytest.mark.parametrize(("bits", "cores"), [(512, 2), (256, 2), (512, 4), (256, 96)])
def test_unseen_device_takes_nearest_kind(bits, cores):
    """An unseen device is served by the kind most like it.

    Vector width decides, then cores, whatever the name.
    """
    kinds = {
        (512, 2): decision(native=1.0, direct=0.4),
        (512, 64): decision(native=1.0, direct=0.3),
        (256, 2): decision(native=1.0, direct=0.2),
        (None, 2): decision(native=1.0, direct=0.1),
    }
    shipped = NOTHING
    for (width, count), each in kinds.items():
        known = dataclasses.replace(ELSEWHERE, vector_bits=width, cores=count)
        shipped |= document(known, each)
    unseen = dataclasses.replace(
        HERE, device_name="unseen", vector_bits=bits, cores=cores
    )
    found = Planner(NOTHING, shipped).plan(PROBLEM, unseen)
    expected = (bits, 2)
    assert found.source == "other device"
    assert found.decision == kinds[expected]
    assert (found.environment.vector_bits, found.environment.cores) == expected


def test_the_sources_are_asked_in_order(tmp_path):
    sources = [
        ("decision", document(HERE, decision())),
        ("other versions", document(UPDATED, decision())),
        ("nearest", document(HERE, decision(with_batch(4)))),
    ]
    shipped = document(ELSEWHERE, decision())
    for first in range(len(sources)):
        measured = NOTHING
        for _, each in sources[first:]:
            measured |= each
        store = in_store(tmp_path / str(first), measured)
        expected = sources[first][0]
        for known in (measured, store):
            assert answer(PROBLEM, known, shipped).source == expected
            assert answer(PROBLEM, NOTHING, measured | shipped).source == expected
    assert answer(PROBLEM, NOTHING, shipped).source == "other device"


def test_stored_other_devices_are_ignored():
    """Decisions of another device in the store are ignored.

    Only the shipped ones were measured with care for other devices.
    """
    assert answer(PROBLEM, document(ELSEWHERE, decision())).source == "native"


@pytest.mark.parametrize(
    "change",
    [
        {"backend": "other"},
        {"compiler_mode": "other"},
        {"device_kind": "tpu"},
        {"device_name": "other", "revisions": (("native", 0),)},
    ],
)
def test_another_environment_kind_is_ignored(change):
    shipped = document(dataclasses.replace(HERE, **change), decision())
    assert answer(PROBLEM, shipped=shipped).source == "native"


# Other versions.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"versions": (("jax", "1.2.2"), ("jaxlib", "1.2.3"))},
            ": jax 1.2.2 then, 1.2.3 now.",
        ),
        (
            {"versions": (("jax", "1.2.3"), ("driver", "550"))},
            ": driver 550 then, none now; jaxlib none then, 1.2.3 now.",
        ),
        (
            {"revisions": (("native", 1), ("direct", 3))},
            ": revision of direct 3 then, 2 now.",
        ),
    ],
)
def test_other_versions_hint_once(change, said, tmp_path, caplog):
    """Decisions of other versions of the same place serve, with one hint."""
    measured = dataclasses.replace(HERE, **change)
    store = in_store(tmp_path, document(measured, decision(), decision(with_batch(4))))
    planner = Planner(store, NOTHING)
    for problem in (PROBLEM, with_batch(4), PROBLEM):
        found = planner.plan(problem, HERE)
        assert found.source == "other versions"
        assert found.decision == decision(problem)
        assert found.plan == Plan("direct", "direct", "direct")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name == "keras_diagwise"
    for named in (str(HERE), said, "keras_diagwise.tune("):
        assert named in record.getMessage()


@pytest.mark.parametrize(
    "change",
    [
        {"backend": "other"},
        {"compiler_mode": "other"},
        {"device_kind": "tpu"},
        {"device_name": "other"},
        {"cores": 64},
        {"flags": (("x64", True), ("matmul_precision", None))},
    ],
)
def test_another_place_is_not_other_versions(change, caplog):
    measured = dataclasses.replace(UPDATED, **change)
    found = answer(PROBLEM, document(measured, decision()))
    assert found.source == "native"
    assert not caplog.records


def test_these_versions_need_no_hint(caplog):
    """A decision measured under these versions needs no hint."""
    measured = document(HERE, decision()) | document(UPDATED, decision())
    assert answer(PROBLEM, measured).source == "decision"
    assert not caplog.records


def test_threads_get_one_hint(caplog):
    planner = Planner(document(UPDATED, decision()), NOTHING)
    assert not in_threads(lambda number: planner.plan(PROBLEM, HERE))
    assert len(caplog.records) == 1


def test_other_versions_serve_no_nearest(caplog):
    """Decisions of other versions serve their very problem alone."""
    found = answer(with_batch(4), document(UPDATED, decision()))
    assert found.source == "native"
    assert not caplog.records


# The nearest.


@pytest.mark.parametrize(
    "change",
    [
        {"kernel_size": (5, 5)},
        {"strides": (2, 2)},
        {"dilation_rate": (2, 2)},
        {"padding": "valid"},
        {"data_format": "channels_first"},
        {"dtype": "float16"},
        {"filters_per_group": 2},
        {"channels_per_group": 2},
    ],
)
def test_another_problem_kind_is_ignored(change):
    measured = decision(dataclasses.replace(PROBLEM, **change))
    assert answer(PROBLEM, document(HERE, measured)).source == "native"


def test_nearest_is_by_size_and_channels():
    """The nearest is by size and channels, and ties are always broken the same way."""
    near = dataclasses.replace(PROBLEM, spatial_shape=(30, 30))
    far = dataclasses.replace(PROBLEM, spatial_shape=(7, 7))
    twice, half = (dataclasses.replace(PROBLEM, groups=n) for n in (128, 32))
    first = min(twice, half, key=lambda each: each.digest)
    measured = [decision(each) for each in (far, near, twice, half)]
    for order in (measured, measured[::-1]):
        assert answer(PROBLEM, document(HERE, *order)).decision.problem == near
        tied = [each for each in order if each.problem in (twice, half)]
        assert answer(PROBLEM, document(HERE, *tied)).decision.problem == first


def test_unknown_batch_counts_as_the_largest():
    """An unknown batch counts as the largest measured one."""
    measured = [decision(with_batch(n)) for n in (1, 64, 8)]
    found = answer(with_batch(None), document(HERE, *measured))
    assert found.decision.problem.batch == 64


def test_an_unfitting_winner_is_passed_over():
    measured = decision(native=1.0, direct=0.1, **{"diagonal:64": 0.05})
    assert answer(PROBLEM, document(HERE, measured)).plan == Plan(*["diagonal:64"] * 3)
    few = dataclasses.replace(PROBLEM, groups=3)
    found = answer(few, document(HERE, measured))
    assert found.plan == Plan("direct", "direct", "direct")


def test_unknown_pixels_are_native():
    """An unknown batch is served, and unknown pixels are native."""
    measured = document(HERE, decision())
    assert answer(with_batch(None), measured).source == "nearest"
    unknown = dataclasses.replace(PROBLEM, spatial_shape=(None, 28))
    assert answer(unknown, measured).plan == Plan()


def test_a_failed_candidate_never_serves():
    outcomes = {
        "native": Outcome(seconds=1.0),
        "direct": Outcome(error=9.0, failure="wrong numbers"),
        "direct:rows": Outcome(seconds=0.9),
    }
    measured = Decision(PROBLEM, {n: Comparison(outcomes, MEASURED) for n in PASSES})
    found = answer(PROBLEM, document(HERE, measured))
    assert found.plan == Plan(*["direct:rows"] * 3)


# What is shipped.


def test_shipped_documents_are_current():
    """Shipped documents are of the algorithms' current revisions."""
    documents = [Document.read(path) for path in SHIPPED.glob("*.json")]
    places = [each for one in documents for each in one.environments()]
    modes = {(each.backend, each.compiler_mode) for each in places}
    assert {("jax", "xla"), ("tensorflow", "xla")} <= modes
    for one in documents:
        (environment,) = one.environments()
        revisions = tuple(
            (name, algorithm.revision)
            for name, algorithm in ALGORITHMS.items()
            if algorithm.is_for(environment.device_kind)
        )
        assert dataclasses.replace(environment, revisions=revisions) == environment
        assert len(one) > 100
        for _, each in one:
            for name in PASSES:
                assert "native" in each.passes[name].outcomes
            each.plan(1.0).check(each.problem)


def test_shipped_names_tell_where_they_serve():
    """The name of a shipped document tells the backend and mode in which it serves."""
    for path in SHIPPED.glob("*.json"):
        for each in Document.read(path).environments():
            assert path.stem.endswith(f"-{each.backend}-{each.compiler_mode}")


def test_shipped_is_unread_if_store_decides(tmp_path, monkeypatch):
    """Shipped documents are not read where the store decides."""

    def fail(*arguments):
        raise AssertionError("it was read")

    monkeypatch.setattr(planner_module, "read_shipped", fail)
    planner = Planner(in_store(tmp_path, document(HERE, decision())))
    assert planner.plan(PROBLEM, HERE).source == "decision"


def test_what_is_shipped_is_read_once():
    assert shipped_document() is shipped_document()
    assert Planner(NOTHING).shipped is shipped_document()
