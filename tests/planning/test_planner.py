"""The ladder: which decision speaks for a problem, and how much it must promise."""

import dataclasses

import pytest

from keras_diagwise import Plan
from keras_diagwise.algorithms import ALGORITHMS
from keras_diagwise.planning.decision import Decision, Document
from keras_diagwise.planning.environment import Environment
from keras_diagwise.planning.planner import SHIPPED, Planner
from keras_diagwise.problem import PASSES
from tests.algorithms.suite import depthwise

HERE = dataclasses.replace(Environment.current(), device_name="here")
ELSEWHERE = dataclasses.replace(HERE, device_name="elsewhere")
PROBLEM = depthwise((28, 28), 64, (3, 3), batch=8)


def decision(problem=PROBLEM, native=1.0, direct=0.1):
    return Decision(
        problem, {name: {"native": native, "direct": direct} for name in PASSES}
    )


def answer(problem, *documents, environment=HERE):
    return Planner(documents).plan(problem, environment)


def test_nothing_measured_is_native():
    found = answer(PROBLEM)
    assert (found.plan, found.rung, found.decision) == (Plan(), "native", None)


@pytest.mark.parametrize(
    ("environment", "problem", "gain", "rung", "chosen"),
    [
        (HERE, PROBLEM, 1.02, "decision", "native"),
        (HERE, PROBLEM, 1.04, "decision", "direct"),
        (HERE, dataclasses.replace(PROBLEM, batch=4), 1.1, "nearest", "native"),
        (HERE, dataclasses.replace(PROBLEM, batch=4), 1.3, "nearest", "direct"),
        (ELSEWHERE, PROBLEM, 1.9, "other device", "native"),
        (ELSEWHERE, PROBLEM, 2.1, "other device", "direct"),
    ],
)
def test_the_further_the_rung_the_larger_the_gain_asked_for(
    environment, problem, gain, rung, chosen
):
    found = answer(problem, Document(environment, (decision(native=gain, direct=1.0),)))
    assert found.rung == rung
    assert found.plan == Plan(chosen, chosen, chosen)


def test_each_pass_is_chosen_for_itself():
    seconds = {
        "forward": {"native": 1.0, "direct": 2.0},
        "input_gradient": {"native": 1.0, "direct": 0.5},
        "kernel_gradient": {"native": 1.0, "direct": 0.9, "direct:rows": 0.2},
    }
    found = answer(PROBLEM, Document(HERE, (Decision(PROBLEM, seconds),)))
    assert found.plan == Plan("native", "direct", "direct:rows")
    assert found.decision.gain(found.plan) == pytest.approx(3 / 1.7)


def test_the_own_device_goes_before_another():
    own, other = decision(direct=0.9), decision(direct=0.1)
    for documents in (
        [Document(HERE, (own,)), Document(ELSEWHERE, (other,))],
        [Document(ELSEWHERE, (other,)), Document(HERE, (own,))],
    ):
        assert answer(PROBLEM, *documents).decision is own


@pytest.mark.parametrize(
    "change",
    [
        {"backend": "other"},
        {"compiler_mode": "other"},
        {"device_kind": "tpu"},
        {"revisions": (("native", 0),)},
    ],
)
def test_another_kind_of_environment_says_nothing(change):
    document = Document(dataclasses.replace(HERE, **change), (decision(),))
    assert answer(PROBLEM, document).rung == "native"


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
def test_another_kind_of_problem_says_nothing(change):
    document = Document(HERE, (decision(dataclasses.replace(PROBLEM, **change)),))
    assert answer(PROBLEM, document).rung == "native"


def test_the_nearest_is_by_size_and_channels_and_ties_are_broken_one_way():
    near = dataclasses.replace(PROBLEM, spatial_shape=(30, 30))
    far = dataclasses.replace(PROBLEM, spatial_shape=(7, 7))
    twice, half = (dataclasses.replace(PROBLEM, groups=n) for n in (128, 32))
    measured = [decision(each) for each in (far, near, twice, half)]
    for order in (measured, measured[::-1]):
        assert answer(PROBLEM, Document(HERE, tuple(order))).decision.problem == near
        tied = answer(
            PROBLEM,
            Document(HERE, tuple(d for d in order if d.problem in (twice, half))),
        )
        assert tied.decision.problem == twice


def test_an_unknown_batch_counts_as_the_largest_measured():
    measured = [decision(dataclasses.replace(PROBLEM, batch=n)) for n in (1, 64, 8)]
    unknown = dataclasses.replace(PROBLEM, batch=None)
    assert answer(unknown, Document(HERE, tuple(measured))).decision.problem.batch == 64


def test_a_winner_that_does_not_fit_is_passed_over():
    seconds = {
        name: {"native": 1.0, "diagonal:64": 0.1, "direct": 0.2} for name in PASSES
    }
    document = Document(HERE, (Decision(PROBLEM, seconds),))
    assert answer(PROBLEM, document).plan == Plan(*["diagonal:64"] * 3)
    few = dataclasses.replace(PROBLEM, groups=3)
    assert answer(few, document).plan == Plan("direct", "direct", "direct")


def test_an_unknown_batch_is_served_and_unknown_pixels_are_native():
    document = Document(HERE, (decision(),))
    unknown = dataclasses.replace(PROBLEM, batch=None)
    assert answer(unknown, document).rung == "nearest"
    unknown = dataclasses.replace(PROBLEM, spatial_shape=(None, 28))
    assert answer(unknown, document).plan == Plan()


def test_a_document_survives_its_file(tmp_path):
    document = Document(HERE, (decision(), decision(depthwise((9,), 4, (3,)))))
    document.write(tmp_path / "document.json")
    assert Document.read(tmp_path / "document.json") == document


def test_a_foreign_file_is_named(tmp_path):
    (tmp_path / "other.json").write_text('{"format": "else"}')
    with pytest.raises(ValueError, match=r"other\.json.*format='else'"):
        Document.read(tmp_path / "other.json")


def test_shipped_documents_are_of_the_algorithms_as_they_are():
    documents = [Document.read(path) for path in SHIPPED.glob("*.json")]
    modes = {(d.environment.backend, d.environment.compiler_mode) for d in documents}
    assert {("jax", "xla"), ("tensorflow", "xla")} <= modes
    for document in documents:
        assert dict(document.environment.revisions) == {
            name: algorithm.revision for name, algorithm in ALGORITHMS.items()
        }
        problems = [each.problem for each in document.decisions]
        assert len(set(problems)) == len(problems) > 100
        for each in document.decisions:
            for name in PASSES:
                assert "native" in each.seconds[name]
            each.plan(1.0).check(each.problem)
