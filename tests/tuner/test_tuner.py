"""The tuner, over a runner on which nothing runs: what is measured, what is kept,
and what is chosen."""

import collections
import dataclasses
import random

import pytest
from msgspec.structs import replace

from keras_diagwise import backends
from keras_diagwise.algorithms import ALGORITHMS, Direct, Native, parse
from keras_diagwise.decision import Comparison, Decision
from keras_diagwise.environment import Environment
from keras_diagwise.planning.planner import Planner
from keras_diagwise.problem import PASSES
from keras_diagwise.storage.store import Store
from keras_diagwise.tuner import tuner as tuner_module
from keras_diagwise.tuner.candidates import candidates_of, is_decided
from keras_diagwise.tuner.comparer import LONGER, MIN_ROUNDS, SECONDS_PER_PASS
from keras_diagwise.tuner.measure import least_ratio
from keras_diagwise.tuner.outcomes import judged
from keras_diagwise.tuner.pruning import HOPELESS, SCOUTS
from keras_diagwise.tuner.runner import BudgetSpentError, FirstRun
from keras_diagwise.tuner.tuner import Tuner
from tests.algorithms.suite import depthwise
from tests.fake_runner import LENIENT, STRICT, FakeRunner, error
from tests.samples import comparison
from tests.threads import in_threads

PROBLEM = depthwise((8, 8), 8, (3, 3))
OTHER = depthwise((9, 9), 8, (3, 3))
FORWARD = PASSES[:1]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def make(store, monkeypatch):
    """A tuner over a fake runner."""

    def make_tuner(runner, **options):
        monkeypatch.setattr(tuner_module, "SubprocessRunner", lambda *_: runner)
        return Tuner(store, **options)

    return make_tuner


def planted(**outcomes):
    """A runner on which whatever is not planted takes a millisecond."""
    return FakeRunner(others=1e-3, **outcomes)


def names(problem=PROBLEM, pass_name="forward"):
    return [str(each) for each in candidates_of(problem, pass_name)]


def outcomes_of(decision, pass_name="forward"):
    return decision.passes[pass_name].outcomes


def spent_after(requests):
    """Raises once so many requests were made: the time is over."""
    left = [requests]

    def before():
        left[0] -= 1
        if left[0] < 0:
            raise TimeoutError

    return before


def test_every_candidate_has_an_outcome(make, store):
    """Every candidate of every pass has an outcome."""
    tuner = make(planted())
    decision = tuner.tune(PROBLEM)
    kept = store.get(tuner.environment, PROBLEM)
    assert decision.to_dict() == kept.to_dict()
    for name in PASSES:
        assert list(outcomes_of(decision, name)) == names(pass_name=name)
        assert decision.passes[name].roofline > 0
    assert tuner.measured == 3


def test_an_unknown_roofline_ends_nothing(make, caplog):
    """Where the roofline can't be measured, for lack of memory, say, decisions are made
    without it, with one warning."""
    tuner = make(planted(roofline_failure="out of memory"))
    decision = tuner.tune(PROBLEM)
    assert all(is_decided(decision, name) for name in PASSES)
    assert {each.roofline for each in decision.passes.values()} == {None}
    (said,) = caplog.messages
    assert "out of memory" in said


def test_a_slow_pass_has_a_longer_timeout(make):
    """Where a call of the best takes long, so may the calls of the others."""
    runner = FakeRunner({"native": 12.0}, others=4.0)
    decision = make(runner).tune(PROBLEM, FORWARD)
    # Three calls that are timed, and two that are verified.
    assert min(runner.timeout.values()) > 5 * 4.0
    assert decision.plan(1.03).forward != Native()


def test_any_wrong_number_is_kept(make, store):
    """Garbage however large is an outcome that can be read again."""
    tuner = make(planted(errors={"direct": 1e30}))
    tuner.tune(PROBLEM)
    kept = Store(store.location).get(tuner.environment, PROBLEM)
    assert outcomes_of(kept)["direct"].failure == "wrong numbers"


@pytest.mark.parametrize("variable", [None, "0", "0,1", "GPU-5"])
def test_a_device_has_one_name(variable, monkeypatch):
    """Processes that see a GPU under any backend, and by its number or without a
    choice, share its lease; those with another GPU, or the CPU, do not."""
    if variable is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    found = {}
    for index in (None, 0, 1):
        monkeypatch.setattr(backends.active, "accelerator_index", lambda at=index: at)
        found[index] = tuner_module.device_place()
    assert found == {None: "cpu", 0: variable if variable == "GPU-5" else "0", 1: "1"}


def test_one_environment_at_a_time_measures(make, store):
    """Two environments of a device share its lease."""
    one = make(planted())
    there = dataclasses.replace(one.environment, compiler_mode="another")
    other = make(planted(), environment=there)
    with one.device() as first, other.device() as second:
        assert (first, second) == (True, False)
    assert not store.clear()


def test_native_is_measured_first(make):
    runner = planted()
    make(runner).tune(PROBLEM)
    first = {
        name: next(each.candidate for each in runner.asked if each.pass_name == name)
        for name in PASSES
    }
    assert set(first.values()) == {"native"}


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_passes_compile_alone_in_graphs_only(make, mode):
    """A pass is compiled alone only where the step is not compiled."""
    runner = planted()
    environment = dataclasses.replace(Environment.current(), compiler_mode=mode)
    make(runner, environment=environment).tune(PROBLEM)
    asked = ("forward", "direct:compiled") in {each[1:] for each in runner.asked}
    assert asked == (backends.active.COMPILES_ALONE and mode == "graph")


def test_stored_decisions_are_not_remeasured(make):
    make(planted()).tune(PROBLEM)
    runner = planted()
    again = make(runner)
    told = []
    again.tune(PROBLEM, on_done=told.append)
    assert not runner.asked
    assert again.measured == 0
    assert told == list(PASSES)


def test_a_new_candidate_remeasures_its_pass(make, monkeypatch):
    with monkeypatch.context() as patch:
        patch.delitem(ALGORITHMS, "diagonal")
        environment = Environment.current()
        make(planted(), environment=environment).tune(PROBLEM)
    runner = planted()
    decision = make(runner, environment=environment).tune(PROBLEM, FORWARD)
    assert {each.pass_name for each in runner.asked} == {"forward"}
    assert is_decided(decision, "forward")


def test_only_requested_passes_are_measured(make):
    runner = planted()
    decision = make(runner).tune(PROBLEM, FORWARD)
    assert (
        set(decision.passes) == {"forward"} == {each.pass_name for each in runner.asked}
    )
    assert not is_decided(decision, "input_gradient")


@pytest.mark.parametrize("field", [{"batch": None}, {"spatial_shape": (None, 8)}])
def test_unknown_sizes_cant_be_measured(make, field):
    with pytest.raises(ValueError, match="known batch and spatial shape"):
        make(planted()).tune(dataclasses.replace(PROBLEM, **field))


def test_each_pass_is_stored_once_known(make, store):
    tuner, seen = make(planted()), []

    def told(pass_name):
        seen.append(set(store.get(tuner.environment, PROBLEM).passes))

    tuner.tune(PROBLEM, on_done=told)
    assert seen == [set(PASSES[:n]) for n in (1, 2, 3)]


@pytest.mark.parametrize("requests", [0, 1, 7, 20])
def test_a_spent_budget_keeps_decided_passes(make, requests):
    """Passes that were decided when the time was over are not measured again."""
    runner = planted(before=spent_after(requests))
    first = make(runner)
    with pytest.raises(BudgetSpentError):
        first.tune(PROBLEM)
    kept = first.known(PROBLEM)
    assert all(is_decided(kept, name) for name in kept.passes)
    assert len(kept.passes) == first.measured
    again = planted()
    decision = make(again).tune(PROBLEM)
    assert not {each.pass_name for each in again.asked} & set(kept.passes)
    assert all(is_decided(decision, name) for name in PASSES)
    assert {n: decision.passes[n] for n in kept.passes} == kept.passes


def test_nothing_begins_once_time_is_over(make):
    runner = planted()
    with pytest.raises(BudgetSpentError):
        make(runner, until=0.0).tune(PROBLEM)
    assert not runner.asked


def test_a_quicker_process_is_believed(make, store, monkeypatch):
    """A decision that another process made meanwhile is taken over."""
    theirs = make(planted())
    runner = planted()
    ours = make(runner)
    known = ours.known

    def known_before(problem):
        found = known(problem)
        theirs.tune(PROBLEM, FORWARD)  # between our look and our turn
        monkeypatch.setattr(ours, "known", known)
        return found

    monkeypatch.setattr(ours, "known", known_before)
    ours.tune(PROBLEM, FORWARD)
    assert not runner.asked


def test_an_error_above_the_bound_fails(make):
    runner = planted(errors={"direct": 2 * STRICT, "diagonal:8": 0.5 * STRICT})
    outcomes = outcomes_of(make(runner).tune(PROBLEM, FORWARD))
    assert outcomes["direct"].failure == "wrong numbers"
    assert outcomes["diagonal:8"].failure is None


def test_twice_the_standard_error_is_allowed(make):
    """Twice the error of the backend's dense convolution is allowed.

    As under TF32, which is the user's to switch off.
    """
    runner = planted(
        errors={"native": 1e-9, "direct": 1.9e-3, "diagonal:8": 2.1e-3},
        standard_error=1e-3,
    )
    outcomes = outcomes_of(make(runner).tune(PROBLEM, FORWARD))
    assert outcomes["direct"].failure is None
    assert outcomes["diagonal:8"].failure == "wrong numbers"


def test_a_wrong_standard_allows_nothing(make):
    """A dense convolution that is wrong allows nothing."""
    runner = planted(errors={"direct": 0.5}, standard_error=1.0)
    outcomes = outcomes_of(make(runner).tune(PROBLEM, FORWARD))
    assert outcomes["direct"].failure == "wrong numbers"


def test_imprecise_native_allows_no_other(make):
    """An imprecise native makes room for no other candidate."""
    half = dataclasses.replace(PROBLEM, dtype="bfloat16")
    native = 0.9 * LENIENT
    runner = planted(errors={"native": native, "direct": native})
    outcomes = outcomes_of(make(runner).tune(half, FORWARD))
    assert outcomes["native"].failure is None
    assert outcomes["direct"].failure == "wrong numbers"


def test_wrong_native_allows_no_other(make):
    """A wrong native is reported, and makes room for no other candidate."""
    runner = planted(errors={"native": 0.9, "diagonal:8": 0.9})
    decision = make(runner).tune(PROBLEM, FORWARD)
    outcomes = outcomes_of(decision)
    assert outcomes["native"].failure == "wrong numbers"
    assert outcomes["diagonal:8"].failure == "wrong numbers"
    assert outcomes["direct"].failure is None
    assert str(decision.plan(1e9).forward) != "native"


def test_native_serves_where_all_fail(make):
    """Where all candidates fail, native serves and the reasons are kept."""
    runner = planted(failures=dict.fromkeys(names(), "exception"))
    decision = make(runner).tune(PROBLEM, FORWARD)
    assert {o.failure for o in outcomes_of(decision).values()} == {"exception"}
    assert str(decision.plan(1.03).forward) == "native"


def test_a_slow_first_run_is_not_timed(make):
    """A candidate that is far behind in its first run is not timed."""
    runner = planted(seconds={"native": 1e-3, "direct": 2.5e-3})
    outcomes = outcomes_of(make(runner).tune(PROBLEM, FORWARD))
    assert outcomes["direct"].failure == "outpaced"
    assert all("direct" not in timed for timed, _ in runner.timed)


def test_native_is_timed_however_far_behind(make):
    runner = planted(seconds={"native": 1.0})
    outcomes = outcomes_of(make(runner).tune(PROBLEM, FORWARD))
    assert outcomes["native"].seconds == 1.0


def test_a_failure_while_timed_spares_others(make):
    """A candidate that fails while it is timed fails alone."""
    runner = planted(failures_when_timed={"direct": "crash"})
    outcomes = outcomes_of(make(runner).tune(PROBLEM, FORWARD))
    assert outcomes["direct"].failure == "crash"
    assert "while it was timed" in outcomes["direct"].reason
    rest = set(names()) - {"direct"}
    assert all(outcomes[name].failure is None for name in rest)
    assert set(runner.timed[-1][0]) == rest


def test_native_failing_timed_is_not_chosen(make):
    """A native that fails while it is timed is not chosen."""
    runner = planted(failures_when_timed={"native": "exception"})
    decision = make(runner).tune(PROBLEM, FORWARD)
    assert outcomes_of(decision)["native"].failure == "exception"
    assert str(decision.plan(1.03).forward) != "native"


@pytest.mark.parametrize("failure", ["out of memory", "timeout", "crash"])
def test_native_accidents_decide_nothing(make, caplog, failure):
    """Where native fails by accident, nothing is decided."""
    runner = planted(failures={"native": failure})
    assert not make(runner).tune(PROBLEM, FORWARD).passes
    assert f"native failed ({failure}: planted)" in caplog.text


def test_what_cant_be_verified_is_dropped(make):
    """A verification drops a timed candidate that this version does not know."""
    measured = comparison(native=1.0, direct=0.5, **{"novel:1": 0.1})
    found = make(planted()).verified(Decision(PROBLEM, {"forward": measured}))
    outcomes = found.passes["forward"].outcomes
    assert outcomes.keys() == {"native", "direct"}
    assert outcomes["direct"].seconds == 0.5


def test_failing_only_together_fails_all(make):
    """Candidates that fail only together all fail."""
    runner = planted(fail_together="exception")
    decision = make(runner).tune(PROBLEM, FORWARD)
    assert {o.failure for o in outcomes_of(decision).values()} == {"exception"}
    assert str(decision.plan(1.03).forward) == "native"


@pytest.mark.parametrize(
    ("others", "is_close"), [(1e-3, True), (0.9e-3, True), (0.6e-3, False)]
)
def test_close_candidates_are_timed_longer(make, others, is_close):
    """Candidates close to native are timed for longer."""
    runner = planted(seconds={name: others for name in names() if name != "native"})
    make(runner).tune(PROBLEM, FORWARD)
    longer = [LONGER * SECONDS_PER_PASS] if is_close else []
    assert [seconds for _, seconds in runner.timed] == [SECONDS_PER_PASS, *longer]


@pytest.mark.parametrize(("others", "are_close"), [(1e-4, True), (1e-2, False)])
def test_far_ahead_is_timed_without_native(make, others, are_close):
    """Candidates far ahead of native are timed on without it."""
    slow = {name: others for name in names() if name.startswith("diagonal")}
    runner = planted(seconds={**slow, "native": 1e-3, "direct": 1e-4})
    make(runner).tune(PROBLEM, FORWARD)
    first, *again = [timed for timed, _ in runner.timed]
    assert "native" in first
    expected = [name for name in first if name != "native"]
    assert again == ([expected] if are_close else [])


@pytest.mark.parametrize(("native", "is_timed"), [(3.0, False), (0.9, True)])
def test_a_slow_native_is_not_timed_further(make, native, is_timed):
    """A native that is slow and has lost is not timed further."""
    runner = planted(seconds={"native": native, "direct": 0.1})
    outcomes = outcomes_of(make(runner).tune(PROBLEM, FORWARD))
    assert outcomes["native"].seconds == native
    assert any("native" in timed for timed, _ in runner.timed) == is_timed


def test_gain_and_time_come_from_the_rounds(make):
    runner = planted(seconds={"native": 2e-3, "direct": 1e-3})
    outcomes = outcomes_of(make(runner).tune(PROBLEM, FORWARD))
    assert outcomes["direct"].seconds == 1e-3
    assert outcomes["direct"].gain == pytest.approx(2)
    assert outcomes["native"].gain is None


def hopeless(problem=PROBLEM):
    """Diagonals that are so slow that they are given up."""
    slow = {name: HOPELESS for name in names(problem) if name.startswith("diagonal")}
    return planted(seconds={**slow, "native": 1.0, "direct": 1.0})


def test_a_hopeless_family_is_pruned_next(make):
    """A hopeless family is pruned on the next problem."""
    runner = hopeless()
    tuner = make(runner)
    tuner.tune(PROBLEM, FORWARD)
    tried = len(runner.asked)
    outcomes = outcomes_of(tuner.tune(OTHER, FORWARD))
    pruned = [n for n, each in outcomes.items() if each.failure == "pruned"]
    assert pruned
    assert all(name.startswith("diagonal") for name in pruned)
    assert len(runner.asked) - tried == len(names(OTHER)) - len(pruned)


def test_exhaustive_gives_up_no_family(make):
    runner = hopeless()
    tuner = make(runner, exhaustive=True)
    for problem in (PROBLEM, OTHER):
        outcomes = outcomes_of(tuner.tune(problem, FORWARD))
        assert all(each.failure != "pruned" for each in outcomes.values())
    assert len(runner.asked) == len(names(PROBLEM)) + len(names(OTHER))


def test_is_decided_asks_for_every_candidate(make):
    decision = make(planted()).tune(PROBLEM, FORWARD)
    outcomes = dict(outcomes_of(decision))
    assert is_decided(decision, "forward")
    del outcomes["direct"]
    missing = Decision(PROBLEM, {"forward": Comparison(outcomes, "now")})
    assert not is_decided(missing, "forward")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_numbers_are_told(bad):
    """Numbers that are not finite are reported as such."""
    first_run = judged(FirstRun(1.0, error(bad), 0.0), Native(), error(0.0))
    assert first_run.failure == "not finite"
    assert first_run.error is None


@pytest.fixture
def on_gpu():
    """The environment of an accelerator."""
    here = Environment.current()
    return dataclasses.replace(here, device_kind="gpu", device_name="planted")


def test_on_a_cpu_nothing_is_compiled_ahead(make):
    runner = planted()
    make(runner).tune(PROBLEM)
    assert runner.compiled == []


def test_on_a_gpu_passes_are_compiled_first(make, on_gpu):
    """What is examined was compiled, before anything was timed."""
    runner = planted()
    seen = []
    runner.before = lambda: seen.append(len(runner.compiled))
    tuner = make(runner, environment=on_gpu)
    tuner.tune(PROBLEM)
    assert seen[0] == 1
    assert {name for name, _ in runner.compiled[0]} == set(PASSES)
    compiled = [job for jobs in runner.compiled for job in jobs]
    assert len(set(compiled)) == len(compiled)
    assert {each[1:] for each in runner.asked} <= set(compiled)


def test_few_of_a_new_family_are_compiled(make, on_gpu):
    """Then it is seen whether the rest are worth it."""
    runner = hopeless()
    tuner = make(runner, environment=on_gpu)
    tuner.tune(PROBLEM, FORWARD)
    (first,) = runner.compiled
    families = collections.Counter(parse(name).family for _, name in first)
    assert max(families.values()) == SCOUTS
    tuner.tune(OTHER, FORWARD)
    assert not any("diagonal" in name for _, name in runner.compiled[1])


@dataclasses.dataclass(frozen=True)
class Foretold(Direct):
    """`direct`, of which it is known how long it takes.

    Attributes:
        seconds: that it is predicted to take.
    """

    seconds: float = 0.0
    name = "foretold"

    def predicted_seconds(self, problem, pass_name, device):
        return self.seconds

    @classmethod
    def candidates(cls, problem, pass_name):
        yield from (cls(seconds=each) for each in (1.6, 1.0, 1.4))

    @classmethod
    def parse(cls, parameters):
        return cls(seconds=float(parameters[0]))

    def __str__(self):
        return f"foretold:{self.seconds}"


@pytest.fixture
def foretold(monkeypatch):
    monkeypatch.setattr(backends.active, "compute_capability", lambda: (9, 0))
    monkeypatch.setitem(ALGORITHMS, "foretold", Foretold)


@pytest.mark.usefixtures("foretold")
def test_far_behind_by_prediction_is_pruned(make, on_gpu):
    runner = planted()
    outcomes = outcomes_of(make(runner, environment=on_gpu).tune(PROBLEM, FORWARD))
    assert outcomes["foretold:1.6"].failure == "pruned"
    assert "predicted to take 1.6 s" in outcomes["foretold:1.6"].reason
    assert outcomes["foretold:1.4"].failure is None
    compiled = [name for jobs in runner.compiled for _, name in jobs]
    assert "foretold:1.6" not in compiled
    asked = [each.candidate for each in runner.asked]
    assert asked[:3] == ["native", "foretold:1.0", "foretold:1.4"]
    assert list(outcomes) == names()


@pytest.mark.usefixtures("foretold")
@pytest.mark.parametrize("failure", ["wrong numbers", "crash"])
def test_others_run_if_the_best_fails(make, on_gpu, failure):
    runner = planted(failures={"foretold:1.0": failure})
    outcomes = outcomes_of(make(runner, environment=on_gpu).tune(PROBLEM, FORWARD))
    assert outcomes["foretold:1.0"].failure == failure
    assert outcomes["foretold:1.6"].failure is None


@pytest.mark.usefixtures("foretold")
def test_exhaustive_trusts_no_prediction(make, on_gpu):
    tuner = make(planted(), environment=on_gpu, exhaustive=True)
    outcomes = outcomes_of(tuner.tune(PROBLEM, FORWARD))
    assert outcomes["foretold:1.6"].failure is None


def test_least_ratio_is_below_the_median():
    """The least ratio is below the median and above the smallest ratios."""
    draw = random.Random(0)
    taken = [draw.uniform(0.9, 1.1) for _ in range(40)]
    native = [2 * draw.uniform(0.9, 1.1) for _ in range(40)]
    ratios = sorted(one / other for one, other in zip(native, taken, strict=True))
    assert ratios[5] < least_ratio(native, taken) < (ratios[19] + ratios[20]) / 2
    assert least_ratio(native, taken) == least_ratio(native, taken)


def test_the_least_ratio_of_the_same_is_one():
    assert least_ratio([3.0] * MIN_ROUNDS, [3.0] * MIN_ROUNDS) == 1.0


def test_eight_threads_tune_and_plan_at_once(make, store):
    problems = [depthwise((n, n), 8, (3, 3)) for n in range(5, 9)]
    runner = planted()
    tuners = [make(runner) for _ in range(8)]
    planner = Planner(store)

    def work(index):
        for problem in problems[index % 4 :] + problems[: index % 4]:
            planner.plan(problem, tuners[index].environment)
            tuners[index].tune(problem)
            answer = planner.plan(problem, tuners[index].environment)
            assert answer.source == "decision"

    assert not in_threads(work)
    assert sum(each.measured for each in tuners) == len(problems) * len(PASSES)
    for problem in problems:
        decision = store.get(tuners[0].environment, problem)
        assert all(is_decided(decision, name) for name in PASSES)


def test_old_wrong_numbers_are_remeasured(make, caplog):
    """Wrong numbers by the former bound are measured anew.

    It refused results that were rounded correctly.
    """
    runner = planted(errors={"direct": 2 * STRICT})
    tuner = make(runner)
    decision = tuner.tune(PROBLEM, FORWARD)
    outcomes = outcomes_of(decision)
    assert outcomes["direct"].excess == 2.0
    assert is_decided(decision, "forward")
    old = {name: replace(each, excess=None) for name, each in outcomes.items()}
    comparison = replace(decision.passes["forward"], outcomes=old)
    before = Decision(PROBLEM, {"forward": comparison})
    assert comparison.is_outdated
    assert not is_decided(before, "forward")
