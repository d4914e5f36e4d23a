"""The whole model's step, stock against converted: what loses goes back to native."""

import math
import time

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keras_diagwise as kd
from keras_diagwise.models import check
from keras_diagwise.models.check import check_step, fewest_losers, losers, overrule
from keras_diagwise.models.problems import uses_in
from keras_diagwise.ops import dispatcher
from keras_diagwise.planning.planner import MARGIN_MEASURED
from keras_diagwise.problem import PASSES
from tests.fake_runner import FakeRunner
from tests.samples import PROBLEM, decision


@given(st.integers(1, 60), st.data())
def test_any_set_of_losers_is_found(count, data):
    choices = list(range(count))
    culprits = data.draw(st.sets(st.sampled_from(choices), min_size=1))
    found = fewest_losers(choices, lambda out: bool(culprits - set(out)))
    assert sorted(found) == sorted(culprits)


@given(st.lists(st.floats(-0.1, 0.3), min_size=1, max_size=40))
def test_without_losers_no_model_loses(costs):
    """Without the losers found, a model in which no pass gains no longer loses.

    Where passes gain too, some losers are found.
    """

    def loses(out):
        return sum(cost for i, cost in enumerate(costs) if i not in out) > 0.03

    choices = range(len(costs))
    if loses(()):
        found = fewest_losers(choices, loses)
        assert found
        assert set(found) <= set(choices)
        if all(cost >= 0 for cost in costs):
            assert not loses(found)


@given(st.integers(2, 60), st.data())
def test_one_loser_takes_few_trials(count, data):
    culprit = data.draw(st.integers(0, count - 1))
    trials = []

    def loses(out):
        trials.append(out)
        return culprit not in out

    fewest_losers(range(count), loses)
    assert len(trials) <= 2 * math.ceil(math.log2(count))


def test_all_are_losers_when_time_is_over():
    class Slow:
        choices = ("a", "b", "c")

        def run(self, out):
            raise check.OutOfTimeError

    assert losers(Slow()) == Slow.choices


def test_overruling_affects_only_its_pass():
    """Native serves in an overruled pass and in no other."""
    before = decision(PROBLEM)
    overruled = overrule(before, "forward", "the whole model lost by it")
    for merged in (before | overruled, overruled | before):
        plan = merged.plan(MARGIN_MEASURED)
        assert [str(plan[name]) for name in PASSES] == ["native", "direct", "direct"]
        assert merged.passes["forward"].seconds == before.passes["forward"].seconds
    assert overruled.passes["forward"].overruled == "the whole model lost by it"


@pytest.mark.parametrize("seed", range(8))
def test_overruling_within_a_second_stays(seed, monkeypatch):
    """A pass overruled within the second of its measurement stays overruled."""
    before = decision(PROBLEM, native=1.0, direct=0.1 + seed)
    measured = before.passes["forward"].measured
    monkeypatch.setattr(check, "now", lambda: measured)
    overruled = overrule(before, "forward", "lost")
    assert (before | overruled).passes["forward"].overruled == "lost"


def test_overruling_outranks_a_clock_ahead(monkeypatch):
    """A comparison that was dated by a clock ahead of ours is overruled all the
    same."""
    before = decision(PROBLEM, measured="2026-01-02T03:05:05+00:00")
    monkeypatch.setattr(check, "now", lambda: "2026-01-02T03:04:15+00:00")
    overruled = overrule(before, "forward", "lost")
    assert (before | overruled).passes["forward"].overruled == "lost"


def small_model():
    return keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            keras.layers.DepthwiseConv2D(3, padding="same", name="first"),
            keras.layers.DepthwiseConv2D(3, 2, padding="same", name="second"),
            keras.layers.DepthwiseConv2D(3, name="third"),
        ]
    )


def plant(monkeypatch, **slower):
    """Lets a converted step take, for each layer and pass that does not run native,
    so many seconds more than stock's one."""

    class Planted(check.Variant):
        @property
        def seconds(self):
            return 1 + sum(
                slower.get(f"{layer.name}_{name}", -0.01)
                for layer, _, plans in self._changes
                for plan in (plans or {}).values()
                for name in PASSES
                if str(plan[name]) != "native"
            )

    def timed(steps, operands, **_):
        return {name: [step.seconds] * 5 for name, step in steps.items()}

    monkeypatch.setattr(check, "Variant", Planted)
    monkeypatch.setattr(check, "interleaved", timed)


def plans_of(model):
    return {
        line.path: line.plan.to_config() for line in kd.summary(model, batch_size=2)
    }


def tuned(model, **arguments):
    return kd.tune(model, **{"batch_size": 2, "verbose": 0, **arguments})


@pytest.mark.usefixtures("nothing_known", "runner")
def test_a_losing_pass_goes_back_to_native(
    monkeypatch,
):
    """A pass that makes the model lose goes back to native, and the report says so."""
    plant(monkeypatch, second_kernel_gradient=0.5)
    model = kd.convert(small_model(), verbose=0)
    weights = [np.array(w) for w in model.get_weights()]
    report = tuned(model)
    problem = uses_in(model, 2)[1].problem
    (line,) = report.model.overruled
    assert line == f"kernel gradient of {problem}"
    assert report.model.speedup == pytest.approx(1 / 0.92)
    assert f"Back to native in the kernel gradient of {problem.batch}" in str(report)
    winners = {(r.layers, r.pass_name): r.winner for r in report.rows}
    assert winners.pop((("second",), "kernel_gradient")) == "native"
    assert set(winners.values()) == {"direct"}
    assert plans_of(model) == {
        "first": "direct",
        "second": {
            "forward": "direct",
            "input_gradient": "direct",
            "kernel_gradient": "native",
        },
        "third": "direct",
    }
    kept = dispatcher.store.get(report.environment, problem).passes
    assert "1.42 times" in kept["kernel_gradient"].overruled
    assert {layer.plan for layer in model.layers} == {"auto"}
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.usefixtures("nothing_known", "runner")
def test_only_layers_that_follow_decisions_count(monkeypatch):
    """Layers that the user left stock, or gave a plan, are checked as they are."""
    plant(monkeypatch, second_kernel_gradient=0.5, third_forward=0.5)
    model = kd.convert(small_model(), filters="first|third", verbose=0)
    model.get_layer("third").plan = kd.Plan(input_gradient="direct")
    report = tuned(model)
    assert report.model.overruled == ()
    assert report.model.speedup == pytest.approx(1 / 0.97)
    assert plans_of(model)["first"] == "direct"
    assert "plan" not in vars(model.get_layer("second"))
    for layer in (model.get_layer("first"), model.get_layer("third")):
        layer.plan = "native"
    report = tuned(model)
    assert report.model.skipped == "none of its layers follows these decisions"


@pytest.mark.usefixtures("nothing_known", "runner")
def test_overruled_pass_is_not_tried_again(monkeypatch):
    plant(monkeypatch, second_kernel_gradient=0.5)
    model = kd.convert(small_model(), verbose=0)
    tuned(model)
    again = tuned(model)
    assert again.measured == 0
    assert plans_of(model)["second"]["kernel_gradient"] == "native"


@pytest.mark.usefixtures("nothing_known", "runner")
@pytest.mark.parametrize("training", [True, False])
def test_a_model_that_wins_keeps_its_plans(training, monkeypatch):
    plant(monkeypatch)
    model = kd.convert(small_model(), verbose=0)
    report = tuned(model, training=training)
    assert report.model.overruled == ()
    assert report.model.speedup > 1
    winners = {row.winner for row in report.rows}
    assert winners == {"direct"}


@pytest.mark.usefixtures("nothing_known", "runner")
def test_a_checked_stock_model_stays_stock(monkeypatch):
    """A stock model is checked as if converted, and stays stock."""
    plant(monkeypatch, first_forward=0.5)
    model = small_model()
    report = tuned(model)
    assert len(report.model.overruled) == 1
    assert {type(layer) for layer in model.layers} == {keras.layers.DepthwiseConv2D}


@keras.saving.register_keras_serializable("tests")
class Refusing(keras.layers.Layer):
    """What runs nowhere."""

    def call(self, inputs):
        raise RuntimeError("it refuses\nfor a reason")

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, inputs.dtype)


def unusual_models():
    """What can't be fed or run, and words of the reason."""
    inputs = keras.Input((8, 8, 4))
    outputs = keras.layers.DepthwiseConv2D(3)(inputs)
    unknown = keras.Input((None, 2))
    return {
        "fed": (
            keras.Model([inputs, unknown], [outputs, unknown]),
            "shape of its input",
        ),
        "run": (keras.Model(inputs, Refusing()(outputs)), ""),
    }


@pytest.mark.usefixtures("nothing_known", "runner")
@pytest.mark.parametrize("impossible", ["fed", "run"])
def test_an_uncheckable_model_is_skipped(impossible):
    """A model that can't be checked is skipped with the reason."""
    model, words = unusual_models()[impossible]
    report = tuned(model)
    assert words in report.model.skipped
    assert report.model.skipped
    assert "\n" not in report.model.skipped
    assert report.measured == 3
    assert "The whole model was not timed" in str(report)


def test_it_is_skipped_where_no_time_is_left():
    found, overruled = check_step(
        small_model(), {}, batch_size=2, training=True, until=time.monotonic() + 1
    )
    assert "no time left" in found.skipped
    assert overruled == []


class Cut(FakeRunner):
    """It ends a tuning at a moment: by its budget, or by Ctrl-C."""

    def __init__(self, moment, error):
        super().__init__({"direct": 0.1})
        self._left, self._error = moment, error

    def examine(self, *arguments, **options):
        self._left -= 1
        if self._left < 0:
            raise self._error
        return super().examine(*arguments, **options)


@pytest.mark.usefixtures("nothing_known", "runner")
@pytest.mark.parametrize("error", [TimeoutError, KeyboardInterrupt])
@pytest.mark.parametrize("moment", range(20))
def test_the_next_call_checks_after_any_cut(moment, error, monkeypatch):
    """Wherever tuning is cut off, the next call makes the check.

    A pass that loses there goes back to native (issue 20).
    """
    plant(monkeypatch, second_kernel_gradient=0.5)
    model = kd.convert(small_model(), verbose=0)
    runner = "keras_diagwise.tuner.tuner.SubprocessRunner"
    with monkeypatch.context() as cut:
        cut.setattr(runner, Cut(moment, error()))
        if error is KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                tuned(model)
        else:
            first = tuned(model)
            assert first.ended == "budget"
            assert first.model is None
    report = tuned(model)
    assert report.ended is None
    assert len(report.model.overruled) == 1
    assert plans_of(model)["second"]["kernel_gradient"] == "native"
