"""`keras_diagwise.decisions`: set, exported, imported, cleared."""

import dataclasses
import json
import os

import keras
import numpy as np
import pytest

import keras_diagwise as kd
from keras_diagwise import backends
from keras_diagwise.decision import Comparison, Decision, Outcome
from keras_diagwise.environment import Environment
from keras_diagwise.models.decisions import Decisions
from keras_diagwise.models.environment import environment_of_models
from keras_diagwise.ops import dispatcher
from keras_diagwise.planning.call import depthwise_problem
from keras_diagwise.problem import PASSES
from keras_diagwise.storage.store import Store
from keras_diagwise.tuner.verify import Error
from tests.algorithms.suite import depthwise
from tests.fake_runner import FakeRunner, traced_plans
from tests.samples import (
    ELSEWHERE,
    HERE,
    MEASURED,
    PROBLEM,
    decision,
    document,
    with_batch,
)
from tests.storage.test_document import HOSTILE

pytestmark = pytest.mark.usefixtures("nothing_known")

SHAPE = (6, 10, 9, 8)


def small_model(plan="auto"):
    inputs = keras.Input(SHAPE[1:])
    layer = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)
    model = keras.Model(inputs, layer(inputs))
    model.compile("sgd", "mse")
    return kd.convert(model, plan=plan, verbose=0)


def batch():
    values = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
    return values, values


def document_for(model):
    """What makes a model's only layer run `direct` in its next training step."""
    kernel = (3, 3, SHAPE[-1], 1)
    problem = depthwise_problem(SHAPE, "float32", kernel, 1, "same", "channels_last", 1)
    environment = dataclasses.replace(
        Environment.current(), compiler_mode=backends.active.compiler_mode_of(model)
    )
    return document(environment, decision(problem, native=1.0, direct=0.1))


def written(path, one):
    one.write(path)
    return path


def test_public_object_shows_its_location():
    """The public `decisions` is a `Decisions`, and its repr has the location."""
    assert isinstance(kd.decisions, Decisions)
    assert kd.decisions.location in repr(kd.decisions)


def test_setting_the_location_forgets_plans(tmp_path, monkeypatch):
    """Setting the location makes plans be looked up anew."""
    forgotten = []
    monkeypatch.setattr(dispatcher, "forget", lambda: forgotten.append(True))
    Store(tmp_path / "other").put(HERE, decision())
    assert len(kd.decisions.document()) == 0
    kd.decisions.location = tmp_path / "other"
    assert kd.decisions.location == str(tmp_path / "other")
    assert forgotten
    assert kd.decisions.document() == document(HERE, decision())
    monkeypatch.setenv("KERAS_DIAGWISE_STORE", str(tmp_path / "variable"))
    kd.decisions.location = None
    assert kd.decisions.location == str(tmp_path / "variable")
    assert not (tmp_path / "variable").exists()


def test_an_invalid_location_changes_nothing():
    """An invalid location is named and changes nothing."""
    before = kd.decisions.location
    with pytest.raises(ValueError, match="Received: location=3"):
        kd.decisions.location = 3
    assert kd.decisions.location == before


def test_on_miss_is_the_dispatchers():
    for value in ("native", "tune", "error", "nearest"):
        kd.decisions.on_miss = value
        assert kd.decisions.on_miss == dispatcher.settings.on_miss == value
    with pytest.raises(ValueError, match="'never'"):
        kd.decisions.on_miss = "never"
    assert kd.decisions.on_miss == "nearest"


def test_strict_precision_applies_at_once():
    """Strict precision holds for decisions that are already measured."""
    outcomes = {
        "native": Outcome(seconds=1.0, error=1e-7),
        "direct": Outcome(seconds=0.1, error=1e-3),
    }
    measured = Comparison(outcomes, MEASURED)
    problem = depthwise((6, 10), 8, (3, 3), batch=4)
    here = Environment.current()
    dispatcher.store.put(here, Decision(problem, dict.fromkeys(PASSES, measured)))
    assert str(dispatcher.answer(problem, "auto").plan.forward) == "direct"
    kd.decisions.precision = "strict"
    assert dispatcher.answer(problem, "auto").plan.is_native
    assert dispatcher.answer(problem, "auto").source == "decision"
    assert "precision='strict'" in repr(kd.decisions)
    with pytest.raises(ValueError, match="precision='exact'"):
        kd.decisions.precision = "exact"
    kd.decisions.precision = "standard"
    assert str(dispatcher.answer(problem, "auto").plan.forward) == "direct"


def test_export_comes_back_on_clean_machine(tmp_path):
    measured = document(HERE, decision(), decision(with_batch(4), native=1.0)) | (
        document(ELSEWHERE, decision())
    )
    dispatcher.planner.store.merge(measured)
    path = tmp_path / "document.json"
    assert kd.decisions.export(path) == 3
    kd.decisions.location = tmp_path / "clean"
    assert kd.decisions.import_(str(path)) == 3
    assert kd.decisions.document() == measured
    assert kd.decisions.import_(path) == 0
    for environment, each in measured:
        found = dispatcher.planner.plan(each.problem, environment)
        assert found.decision == each
        assert found.source == "decision"


def test_an_import_merges(tmp_path):
    dispatcher.planner.store.merge(document(HERE, decision(passes=["forward"])))
    more = document(HERE, decision(), decision(with_batch(4)))
    assert kd.decisions.import_(written(tmp_path / "more.json", more)) == 2
    assert kd.decisions.document() == more


class Suspicious(FakeRunner):
    """On which `direct` gives wrong numbers."""

    def examine(self, task, candidate, enough=0.0, timeout=0.0):
        found = super().examine(task, candidate)
        wrong = str(candidate) == "direct"
        return dataclasses.replace(found, error=Error(1, 1e6, 1e6)) if wrong else found


def test_verified_import_drops_wrong_numbers(tmp_path, monkeypatch):
    """Candidates that are wrong here do not serve after a verified import."""
    runner = Suspicious({})
    monkeypatch.setattr("keras_diagwise.tuner.tuner.SubprocessRunner", runner)
    here = environment_of_models()
    elsewhere = dataclasses.replace(here, backend="another")
    times = {"native": 1.0, "direct": 0.1, "diagonal:4": 0.2}
    theirs = document(here, decision(**times)) | document(elsewhere, decision())
    path = written(tmp_path / "theirs.json", theirs)
    assert kd.decisions.import_(path, verify=True) == 1
    ((environment, found),) = kd.decisions.document()
    assert environment == here
    for comparison in found.passes.values():
        assert comparison.outcomes["direct"].failure == "wrong numbers"
        assert comparison.seconds == {"native": 1.0, "diagonal:4": 0.2}
    asked = {name for _, _, name in runner.asked}
    assert asked == {"direct", "diagonal:4"}
    kd.decisions.import_(path)
    assert len(kd.decisions.document()) == 2, "unverified they are taken as they are"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("verified_first", [True, False])
def test_a_verification_is_not_forgotten(seed, verified_first, tmp_path, monkeypatch):
    """What a verified import found outlasts an unverified import of the same file."""
    runner = Suspicious({})
    monkeypatch.setattr("keras_diagwise.tuner.tuner.SubprocessRunner", runner)
    times = {"native": 1.0 + seed, "direct": 0.1}
    theirs = document(environment_of_models(), decision(**times))
    path = written(tmp_path / "theirs.json", theirs)
    for verify in (verified_first, not verified_first):
        kd.decisions.import_(path, verify=verify)
    ((_, found),) = kd.decisions.document()
    for comparison in found.passes.values():
        assert comparison.outcomes["direct"].failure == "wrong numbers"


def test_an_export_is_atomic(tmp_path, monkeypatch):
    """An export replaces a file at once or not at all."""
    path = tmp_path / "document.json"
    path.write_text("before")

    def fail(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        kd.decisions.export(path)
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["document.json"]


def test_an_empty_export_can_be_imported(tmp_path):
    assert kd.decisions.export(tmp_path / "document.json") == 0
    assert kd.decisions.import_(tmp_path / "document.json") == 0


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("folder", "is not a regular file"),
        ("pipe", "is not a regular file"),
        ("missing/document.json", "does not exist"),
    ],
)
def test_what_cant_be_exported_to_is_named(tmp_path, path, named):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=f"{named}.*Received: path=.*{path}"):
        kd.decisions.export(tmp_path / path)


def test_export_through_a_link_keeps_it(tmp_path):
    """An export through a link writes its target and leaves the link."""
    (tmp_path / "document.json").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / "document.json")
    kd.decisions.export(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "document.json").read_text())["environments"] == []


@pytest.mark.parametrize("path", ["folder", "pipe", "missing.json", "null\0byte"])
def test_what_cant_be_imported_is_named(tmp_path, path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"`path` must be a file .*Received: path"):
        kd.decisions.import_(f"{tmp_path}/{path}")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_leaves_nothing(tmp_path, name):
    """Nothing of a hostile document is kept."""
    path = tmp_path / "hostile.json"
    path.write_text(HOSTILE[name])
    with pytest.raises(ValueError, match="Nothing was imported") as error:
        kd.decisions.import_(path)
    assert len(str(error.value)) < 1000
    assert not (tmp_path / "store").exists()


def test_one_wrong_decision_voids_a_document(tmp_path):
    values = json.loads(document(HERE, decision(), decision(with_batch(4))).to_text())
    values["environments"][0]["decisions"][1]["problem"]["groups"] = "many"
    (tmp_path / "hostile.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="'many'"):
        kd.decisions.import_(tmp_path / "hostile.json")
    assert not (tmp_path / "store").exists()


def test_a_gigabyte_is_refused_unread(tmp_path):
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ValueError, match=f"Received: {2**30}"):
        kd.decisions.import_(tmp_path / "huge.json")


def test_a_wrong_model_is_named_first(tmp_path):
    """A model that is none is named before anything is kept."""
    path = written(tmp_path / "document.json", document(HERE, decision()))
    with pytest.raises(TypeError, match="`model` must be"):
        kd.decisions.import_(path, models=["model"])
    assert len(kd.decisions.document()) == 0


@pytest.mark.parametrize("alone", [True, False])
def test_next_step_runs_imported_plans(tmp_path, monkeypatch, alone):
    """The very next step of a model runs the imported plans."""
    model = small_model()
    path = written(tmp_path / "document.json", document_for(model))
    seen = traced_plans(monkeypatch)
    model.train_on_batch(*batch())
    held = model.train_function
    assert not seen
    assert kd.decisions.import_(path, models=model if alone else [model]) == 1
    model.train_on_batch(*batch())
    assert set(seen) == {"direct"}
    assert held is not model.train_function


def test_clearing_goes_back_to_native(tmp_path, monkeypatch):
    model = small_model()
    dispatcher.planner.store.merge(document_for(model))
    seen = traced_plans(monkeypatch)
    model.train_on_batch(*batch())
    assert set(seen) == {"direct"}
    assert kd.decisions.clear() == 1
    assert kd.decisions.clear() == 0
    seen.clear()
    small_model().train_on_batch(*batch())
    assert not seen


def test_an_imported_decision_answers(tmp_path):
    """A problem is answered from the imported decisions."""
    path = written(tmp_path / "document.json", document(HERE, decision()))
    assert dispatcher.answer(PROBLEM, "auto", HERE).source == "native"
    kd.decisions.import_(path)
    assert dispatcher.answer(PROBLEM, "auto", HERE).source == "decision"
