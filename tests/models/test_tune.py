"""`keras_diagwise.tune`: what it measures, what it says, and that the next step of the
model runs by it."""

import dataclasses
import datetime
import json

import keras
import numpy as np
import pytest
from msgspec.structs import replace

import keras_diagwise as kd
from keras_diagwise import backends
from keras_diagwise.budget import standardize_budget
from keras_diagwise.decision import Decision
from keras_diagwise.layers.base import Diagonalwise
from keras_diagwise.models import shared_check
from keras_diagwise.models.environment import environment_of_models
from keras_diagwise.models.report import ModelCheck
from keras_diagwise.ops import dispatcher
from keras_diagwise.planning.source import PlanSource
from keras_diagwise.problem import PASSES
from tests.fake_runner import traced_plans
from tests.samples import PROBLEM, with_batch

pytestmark = pytest.mark.usefixtures("nothing_known", "runner")

BACKEND = keras.backend.backend()
SHAPE = (8, 8, 4)


@pytest.fixture
def unchecked(monkeypatch):
    """Without the whole model's step at the end."""
    check = ModelCheck(skipped="not in this test"), []
    monkeypatch.setattr(shared_check, "check_step", lambda *a, **k: check)


@pytest.fixture
def seen(monkeypatch):
    return traced_plans(monkeypatch)


def depthwise(stride=1, **arguments):
    return keras.layers.DepthwiseConv2D(2, stride, padding="same", **arguments)


def tiny_model():
    layers = [keras.Input(SHAPE), depthwise(), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential(layers)


def small_model():
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            depthwise(name="first"),
            keras.layers.Dropout(0.5, seed=3),
            depthwise(2, name="second"),
            keras.layers.GlobalAveragePooling2D(),
        ],
        name="small",
    )


def compiled(model, **arguments):
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse", **arguments)
    return model


def batch(size=2):
    return np.ones((size, *SHAPE), "float32"), np.zeros((size, 4), "float32")


def tuned(target, **arguments):
    return kd.tune(target, **{"batch_size": 2, "verbose": 0, **arguments})


def input_shapes(report):
    return list(dict.fromkeys(row.problem.input_shape() for row in report.rows))


def plans_of_the_next(model, seen):
    """The plans by which the next training step and the next prediction run; none is
    stock."""
    found = {}
    steps = {
        "train": lambda: model.train_on_batch(*batch()),
        "predict": lambda: model.predict_on_batch(batch()[0]),
    }
    for name, step in steps.items():
        seen.clear()
        step()
        found[name] = set(seen)
    return found


def all_steps(*plans):
    return {name: set(plans) for name in ("train", "predict")}


def held_functions(model):
    return [model.train_function, model.predict_function]


def overruled_later(report):
    """The decisions of a report, by which native serves, as another worker finds."""
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    later = soon.isoformat(timespec="seconds")
    for row in report.rows:
        found = replace(row.comparison, measured=later, overruled="planted")
        yield Decision(row.problem, {row.pass_name: found})


@pytest.mark.usefixtures("unchecked")
class TestTheNextStep:
    def test_is_settled_despite_later_findings(self, seen):
        """The next step is settled, whatever other workers find later."""
        model = compiled(kd.convert(tiny_model(), verbose=0))
        report = tuned(model)
        for each in overruled_later(report):
            dispatcher.store.put(report.environment, each)
        assert plans_of_the_next(model, seen) == all_steps("direct")
        tuned(model)
        assert plans_of_the_next(model, seen) == all_steps()

    def test_runs_new_plans_if_old_are_held(self, seen):
        """The next step runs the new plans even if the old functions are held."""
        model = compiled(kd.convert(tiny_model(), verbose=0))
        assert plans_of_the_next(model, seen) == all_steps()
        held = held_functions(model)
        tuned(model)
        assert plans_of_the_next(model, seen) == all_steps("direct")
        assert all(held)

    def test_of_a_fit_runs_them_too(self, seen):
        model = compiled(kd.convert(tiny_model(), verbose=0))
        model.fit(*batch(4), batch_size=2, verbose=0)
        assert not seen
        held = held_functions(model)
        tuned(model)
        model.fit(*batch(4), batch_size=2, verbose=0)
        assert set(seen) == {"direct"}
        assert held[0]

    def test_runs_plans_imported_for_the_model(self, seen, tmp_path):
        model = compiled(kd.convert(tiny_model(), verbose=0))
        tuned(model)
        kd.decisions.export(tmp_path / "all.json")
        kd.decisions.clear()
        compiled(model)
        assert plans_of_the_next(model, seen) == all_steps()
        held = held_functions(model)
        kd.decisions.import_(tmp_path / "all.json", models=[model])
        assert plans_of_the_next(model, seen) == all_steps("direct")
        assert all(held)

    def test_of_stock_is_stock_until_converted(self, seen):
        """The next step of a stock model is stock until the model is converted."""
        model = compiled(tiny_model())
        tuned(model)
        assert plans_of_the_next(model, seen) == all_steps()
        kd.convert(model, verbose=0)
        assert plans_of_the_next(model, seen) == all_steps("direct")
        kd.revert(model)
        assert plans_of_the_next(model, seen) == all_steps()

    @pytest.mark.skipif(BACKEND == "torch", reason="torch's steps are not compiled")
    def test_keeps_its_plans_without_decisions(self, seen):
        """The next step keeps its plans when all decisions are cleared.

        It does so until the model is compiled anew.
        """
        model = compiled(kd.convert(tiny_model(), verbose=0))
        tuned(model)
        plans_of_the_next(model, seen)
        function = model.train_function
        kd.decisions.clear()
        seen.clear()
        model.train_on_batch(*batch())
        assert model.train_function is function
        assert not seen
        compiled(model)
        assert plans_of_the_next(model, seen) == all_steps()

    def test_runs_by_the_store_at_the_end(self, seen):
        """The next step runs by the store as it is when tuning ends.

        This holds also after an interruption.
        """
        model = compiled(kd.convert(tiny_model(), verbose=0))
        plans_of_the_next(model, seen)
        before = model.train_function
        report = tuned(model, budget=1e-9)
        assert report.ended == "budget"
        assert model.train_function not in (None, before)

    @pytest.mark.parametrize("moment", ["on_train_batch_end", "on_epoch_end"])
    def test_of_a_running_fit_runs_new_plans(self, seen, moment):
        """The next step of a fit that is running runs the new plans."""
        model = compiled(kd.convert(tiny_model(), verbose=0))
        inputs = np.ones((8, *model.input_shape[1:]), "float32")
        outputs = np.ones((8, *model.output_shape[1:]), "float32")
        reports = []

        def tune_once(number, logs):
            if not reports:
                assert not seen
                reports.append(tuned(model))

        callback = keras.callbacks.LambdaCallback(**{moment: tune_once})
        model.fit(
            inputs, outputs, batch_size=2, epochs=2, verbose=0, callbacks=[callback]
        )
        assert reports[0].measured
        assert set(seen) == {"direct"}


@pytest.mark.usefixtures("unchecked")
class TestTargets:
    def test_model_file_and_application_agree(self, tmp_path, monkeypatch):
        """A model, its file and an application are tuned as the same problems."""
        model = small_model()
        model.save(tmp_path / "small.keras")
        monkeypatch.setattr(
            keras.applications, "Small", lambda **_: small_model(), raising=False
        )
        first = tuned(model)
        assert first.measured == 6
        assert [row.layers for row in first.rows[::3]] == [
            ("first",),
            ("second",),
        ]
        for target in (
            str(tmp_path / "small.keras"),
            tmp_path / "small.keras",
            "Small",
        ):
            again = tuned(target)
            assert again.measured == 0
            assert [r.problem for r in again.rows] == [r.problem for r in first.rows]

    def test_problems_hold_their_batch(self):
        report = kd.tune((with_batch(n) for n in (1, 3)), verbose=0)
        assert [row.problem.batch for row in report.rows] == [1, 1, 1, 3, 3, 3]
        assert {row.layers for row in report.rows} == {()}
        assert report.environment == environment_of_models()

    @pytest.mark.parametrize(
        "target", [None, 3, [1, 2], [PROBLEM, "x"], keras.layers.Dense], ids=str
    )
    def test_anything_else_is_named(self, target):
        with pytest.raises(TypeError, match="Received: model_or_problems="):
            tuned(target)

    @pytest.mark.parametrize("name", ["Nothing", "nowhere.keras"])
    def test_a_name_of_nothing_is_named(self, name):
        with pytest.raises(ValueError, match=name):
            tuned(name)

    @pytest.mark.parametrize(
        "problem",
        [
            with_batch(None),
            with_batch(0),
            dataclasses.replace(PROBLEM, spatial_shape=(None, 8)),
            dataclasses.replace(PROBLEM, dtype="foo"),
        ],
        ids=str,
    )
    def test_unmeasurable_problems_fail_first(self, problem, runner):
        """Problems that can't be measured are refused before any is measured."""
        with pytest.raises(ValueError, match="Received: problem="):
            tuned([PROBLEM, problem])
        assert not runner.asked

    @pytest.mark.parametrize("size", [0, -1, 1.5, "3", [], [2, 0], [2, None]], ids=str)
    def test_a_batch_size_that_is_none_is_named(self, size):
        with pytest.raises(ValueError, match="Received: batch_size="):
            tuned(small_model(), batch_size=size)

    def test_a_model_needs_a_batch_size(self):
        with pytest.raises(ValueError, match="Received: batch_size=None"):
            tuned(small_model(), batch_size=None)

    def test_each_batch_size_is_tuned(self):
        report = tuned(small_model(), batch_size=[2, np.int64(5)])
        assert {row.problem.batch for row in report.rows} == {2, 5}
        assert report.measured == 12

    def test_inference_tunes_only_forward(self):
        """Without training, only the forward pass is tuned."""
        model = small_model()
        report = tuned(model, training=False)
        assert {row.pass_name for row in report.rows} == {"forward"}
        assert report.measured == 2
        whole = tuned(model)
        assert {row.pass_name for row in whole.rows} == set(PASSES)
        assert whole.measured == 4


@pytest.mark.parametrize(
    ("budget", "seconds"),
    [
        (None, None),
        (3, 3.0),
        (0.25, 0.25),
        (1e-9, 1e-9),
        (1e20, 1e20),
        ("30", 30.0),
        ("30s", 30.0),
        (" 1.5 m ", 90.0),
        ("2min", 120.0),
        ("1h", 3600.0),
    ],
)
def test_a_budget_is_seconds_or_a_text(budget, seconds):
    assert standardize_budget(budget) == seconds


@pytest.mark.parametrize(
    "budget",
    [0, -1, float("nan"), "", "s", "5 parsecs", "1.2.3s", "-3s", [3]],
    ids=str,
)
def test_a_budget_that_is_none_is_named(budget):
    with pytest.raises(ValueError, match="Received: budget="):
        tuned(small_model(), budget=budget)


@pytest.mark.usefixtures("unchecked")
class TestModels:
    def test_a_shared_layer_is_tuned_per_shape(self):
        """A shared layer is measured once for each shape."""
        shared = depthwise(name="shared")
        inputs = keras.Input(SHAPE)
        x = shared(shared(inputs))
        model = keras.Model(inputs, [x, shared(keras.layers.MaxPooling2D()(x))])
        report = tuned(model)
        assert input_shapes(report) == [(2, 8, 8, 4), (2, 4, 4, 4)]
        assert {row.layers for row in report.rows} == {("shared",)}

    def test_equal_problems_are_measured_once(self):
        """Layers that pose the same problem are measured once."""
        report = tuned(
            keras.Sequential(
                [keras.Input(SHAPE), depthwise(name="a"), depthwise(name="b")]
            )
        )
        assert report.measured == 3
        assert {row.layers for row in report.rows} == {("a", "b")}
        assert {row.times for row in report.rows} == {2}

    def test_layers_of_nested_models_are_found(self):
        inner = keras.Sequential([keras.Input(SHAPE), depthwise(name="deep")])
        report = tuned(keras.Sequential([keras.Input(SHAPE), inner]))
        assert input_shapes(report) == [(2, *SHAPE)]

    def test_time_distributed_measures_one_step(self):
        """A layer in `TimeDistributed` is measured on one step."""
        spread = keras.layers.TimeDistributed(depthwise())
        report = tuned(keras.Sequential([keras.Input((3, *SHAPE)), spread]))
        assert input_shapes(report) == [(2, *SHAPE)]

    def test_dtype_is_that_of_the_layers_policy(self):
        layer = depthwise(dtype="mixed_bfloat16")
        report = tuned(keras.Sequential([keras.Input(SHAPE), layer]))
        assert {row.problem.dtype for row in report.rows} == {"bfloat16"}

    @pytest.mark.skipif(BACKEND != "tensorflow", reason="others have one compiler mode")
    def test_the_compiler_mode_is_the_models(self, seen):
        for jit_compile, mode in ((True, "xla"), (False, "graph")):
            model = compiled(
                kd.convert(small_model(), verbose=0), jit_compile=jit_compile
            )
            report = tuned(model)
            assert report.environment.compiler_mode == mode
            assert report.measured == 6
            assert plans_of_the_next(model, seen) == all_steps("direct")

    def test_uncalled_layers_are_skipped(self):
        """Layers that were not called are skipped with the reason."""

        class Subclassed(keras.Model):
            def __init__(self):
                super().__init__()
                self.convolve = depthwise(name="hidden")

            def call(self, inputs):
                return self.convolve(inputs)

        unbuilt = keras.Sequential([depthwise(name="hidden")])
        for model in (Subclassed(), unbuilt):
            report = tuned(model)
            ((path, reason),) = report.skipped
            assert "hidden" in path or "depthwise_conv2d" in path
            assert reason == PlanSource.NOT_CALLED
            assert report.rows == ()
            assert f"Skipped {path}: {reason}." in str(report)

    def test_other_models_graphs_do_not_count(self):
        """A layer that another model shares is measured for this model's shapes."""
        inputs = keras.Input((8, 8, 4))
        shared = keras.layers.DepthwiseConv2D(3, padding="same")
        last = keras.layers.DepthwiseConv2D(3, padding="same")
        features = shared(inputs)
        whole = keras.Model(inputs, last(features))
        part = keras.Model(inputs, features)
        wide = keras.Sequential([keras.Input((16, 16, 4)), *whole.layers[1:]])
        nested = keras.Sequential([keras.Input((8, 8, 4)), part])
        for model, size in ((whole, 8), (wide, 16), (part, 8), (nested, 8)):
            assert input_shapes(tuned(model)) == [(2, size, size, 4)]
        steps = keras.layers.TimeDistributed(shared)
        timed = keras.Sequential([keras.Input((3, 6, 6, 4)), steps])
        assert input_shapes(tuned(timed)) == [(2, 6, 6, 4)]

    def test_unknown_spatial_shape_is_skipped(self):
        """A layer of unknown spatial shape is skipped with the reason."""
        model = keras.Sequential([keras.Input((None, 8, 4)), depthwise(name="open")])
        assert tuned(model).skipped == (("open", "the spatial shape is not known"),)

    def test_nothing_to_measure_is_a_warning(self, runner):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        with pytest.warns(UserWarning, match="nothing to measure in 'sequential'"):
            report = tuned(model)
        assert report.rows == report.skipped == ()
        assert not runner.asked


def snapshot(model):
    """All of a model that a tuning must leave as it is."""
    variables = list(model.variables)
    settings = None
    if model.compiled:
        variables += model.optimizer.variables
        settings = json.dumps(model.get_compile_config(), default=repr)
    return (
        [(type(each), each.name, each.trainable) for each in model.layers],
        [each.plan for each in model.layers if isinstance(each, Diagonalwise)],
        [(v.path, keras.ops.convert_to_numpy(v.value).tobytes()) for v in variables],
        settings,
        [getattr(model, name) for name in ("jit_compile", "run_eagerly")],
    )


def half_trained(model):
    compiled(model)
    model.fit(*batch(4), batch_size=2, verbose=0)
    return model


@pytest.mark.parametrize(
    ("convert", "prepared"),
    [(False, lambda model: model), (True, compiled), (False, half_trained)],
    ids=["stock", "converted, compiled", "stock, half-trained"],
)
def test_the_model_is_left_exactly_as_it_was(prepared, convert, monkeypatch):
    """Also by the check of its whole step."""
    monkeypatch.setattr("keras_diagwise.models.check.SECONDS_OF_TRIAL", 0.0)
    monkeypatch.setattr("keras_diagwise.models.check.MIN_ROUNDS", 1)
    model = small_model()
    if convert:
        kd.convert(model, verbose=0)
    prepared(model)
    before = snapshot(model)
    report = tuned(model)
    assert report.model.skipped is None
    assert snapshot(model) == before


@pytest.mark.usefixtures("unchecked")
def test_an_interruption_keeps_decisions(runner, monkeypatch, capsys):
    """An interruption keeps the decisions so far and is raised."""
    examine = runner.examine

    def interrupted(task, *arguments):
        if task.pass_name == "kernel_gradient":
            raise KeyboardInterrupt
        return examine(task, *arguments)

    monkeypatch.setattr(runner, "examine", interrupted)
    model = kd.convert(small_model(), verbose=0)
    with pytest.raises(KeyboardInterrupt):
        tuned(model, verbose=1)
    assert "2 passes measured" in capsys.readouterr().out
    found = dispatcher.store.document()
    assert [set(each.passes) for _, each in found] == [{"forward", "input_gradient"}]
    monkeypatch.undo()


@pytest.mark.usefixtures("unchecked")
def test_the_summary_tells_what_was_tuned():
    model = compiled(kd.convert(small_model(), verbose=0))
    tuned(model)
    mode = backends.active.compiler_mode_of(model)
    for line in kd.summary(model, batch_size=2):
        assert (str(line.plan), line.rung) == ("direct", "decision")
        assert line.gain == pytest.approx(10)
    assert {e.compiler_mode for e, _ in dispatcher.store.document()} == {mode}


class TestTheCheckOfTheWholeModel:
    """It is not lost where there was no time for it (issue 20)."""

    def model(self):
        return compiled(kd.convert(small_model(), verbose=0))

    def test_is_made_later_if_there_was_no_time(self, monkeypatch):
        """The check is made by the next call if there was no time for it."""
        monkeypatch.setattr("keras_diagwise.models.check.SECONDS_OF_TRIAL", 0.0)
        monkeypatch.setattr("keras_diagwise.models.check.MIN_ROUNDS", 1)
        monkeypatch.setattr(
            "keras_diagwise.models.check.expected_seconds", lambda *_: 1e6
        )
        model = self.model()
        first = kd.tune(model, batch_size=2, budget="1h", verbose=0)
        assert "no time left" in first.model.skipped
        assert first.measured
        second = kd.tune(model, batch_size=2, verbose=0)
        assert second.measured == 0
        assert second.model.skipped is None
        assert second.model.stock_seconds > 0

    def test_is_made_by_next_call_after_ctrl_c(self, monkeypatch):
        monkeypatch.setattr("keras_diagwise.models.check.SECONDS_OF_TRIAL", 0.0)
        monkeypatch.setattr("keras_diagwise.models.check.MIN_ROUNDS", 1)
        model = self.model()
        check_step = shared_check.check_step

        def interrupted(*arguments, **options):
            raise KeyboardInterrupt

        monkeypatch.setattr(shared_check, "check_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            kd.tune(model, batch_size=2, verbose=0)
        monkeypatch.setattr(shared_check, "check_step", check_step)
        report = kd.tune(model, batch_size=2, verbose=0)
        assert report.measured == 0
        assert report.model.stock_seconds > 0

    def test_is_kept_and_not_made_again(self, monkeypatch):
        monkeypatch.setattr("keras_diagwise.models.check.SECONDS_OF_TRIAL", 0.0)
        monkeypatch.setattr("keras_diagwise.models.check.MIN_ROUNDS", 1)
        model = self.model()
        first = kd.tune(model, batch_size=2, verbose=0)
        monkeypatch.setattr(shared_check, "check_step", 0)
        assert kd.tune(model, batch_size=2, verbose=0).model == first.model


def test_an_unwritable_store_fails_at_once(tmp_path, runner):
    """A store that can't be written fails at once.

    It does not fail after everything was measured, and lost.
    """
    (tmp_path / "file").write_text("")
    kd.decisions.location = tmp_path / "file" / "store"
    with pytest.raises(OSError, match=r"can't be kept in .*keep=False"):
        kd.tune(tiny_model(), batch_size=2, verbose=0)
    assert runner.asked == []
    report = kd.tune(tiny_model(), batch_size=2, keep=False, verbose=0)
    assert report.measured
