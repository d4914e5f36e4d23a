"""`keras-diagwise doctor`: what it finds, how it says it, and how it ends."""

import dataclasses
import json
import os

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import keras_diagwise as kd
from keras_diagwise.algorithms import Direct, Native
from keras_diagwise.models.environment import environment_of_models
from keras_diagwise.ops import dispatcher
from keras_diagwise.problem import PASSES
from keras_diagwise.storage.document import Document
from keras_diagwise.storage.store import Store
from keras_diagwise.tuner import subprocess_runner
from keras_diagwise.tuner.runner import FirstRun, Runner
from keras_diagwise.tuner.subprocess_runner import NoChildError
from keras_diagwise.tuner.verify import Error
from keras_diagwise_cli import app, tunables
from keras_diagwise_cli.commands import doctor
from keras_diagwise_cli.diagnosis import computation, configuration, huge_pages, nvidia
from keras_diagwise_cli.diagnosis import finding as findings
from keras_diagwise_cli.diagnosis.finding import Finding
from keras_diagwise_cli.errors import UserError
from tests.samples import ELSEWHERE, decision, document, with_batch

ESCAPE = "\x1b"
SUBJECTS = [
    "versions",
    "variables",
    "backend",
    "on_miss",
    "precision",
    "store",
    "decisions",
    "files",
    "shipped",
    "tuner",
    "algorithms",
    "memory",
]


@pytest.fixture(autouse=True)
def machine(store, tmp_path, monkeypatch):
    """Without variables of ours and a GPU."""
    for name in configuration.VARIABLES[1:]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(nvidia, "DRIVER", tmp_path / "no such device")


@pytest.fixture
def no_work(monkeypatch):
    """Nothing computed, no process started."""
    fine = Finding("tuner", "ok", "fine")
    monkeypatch.setattr(computation, "tuner", lambda: fine)
    monkeypatch.setattr(computation, "algorithms", lambda *_: fine)
    monkeypatch.setattr(computation, "memory", lambda: fine)


def invoke(*arguments, width=80):
    return CliRunner().invoke(app, ["doctor", *arguments], env={"COLUMNS": str(width)})


def found(code=0):
    """The findings of a run, by subject."""
    result = invoke("--json")
    assert result.exit_code == code, result.output
    values = json.loads(result.stdout)
    assert values["state"] == ("error" if code else values["state"])
    return {each["subject"]: each for each in values["findings"]}


def here():
    return environment_of_models()


def test_all_is_well_on_this_machine():
    """Everything, with a child process that computes."""
    result = invoke("--json")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["state"] == "ok", values
    assert [each["subject"] for each in values["findings"]] == SUBJECTS
    known = {each["subject"]: each["values"] for each in values["findings"]}
    assert known["versions"]["keras"] == keras.__version__
    assert known["versions"]["keras-diagwise"] == kd.__version__
    assert known["backend"] == {"digest": here().digest, **here().to_dict()}
    assert known["store"]["writable"] is True
    for name in ("native", "direct", "diagonal"):
        for pass_name in PASSES:
            assert any(
                key.startswith(name) and key.endswith(pass_name)
                for key in known["algorithms"]
            )
    assert set(known["algorithms"].values()) == {"right"}


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_piped_table_fits_and_is_plain(width):
    result = invoke(width=width)
    assert result.exit_code == 0
    for subject in SUBJECTS[:8]:
        assert f" {subject} " in result.stdout
    assert "All is well." in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= min(width, 80)
    assert ESCAPE not in result.stdout


class TestMemory:
    """What huge pages would give."""

    def of(self, monkeypatch, at_least, **variables):
        cost = huge_pages.StepCost(0.010, 0.007, 1.43, at_least)
        monkeypatch.setattr(huge_pages, "step_cost", lambda: cost)
        monkeypatch.setattr(tunables, "refusal", lambda: None)
        monkeypatch.delenv(tunables.VARIABLE, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return computation.memory()

    def test_a_gain_comes_with_the_line_to_set(self, monkeypatch):
        found = self.of(monkeypatch, 1.3)
        assert "10 ms, and 7 ms" in found.text
        assert "1.43× as fast, at least 1.30× by the 95 % bound" in found.text
        assert found.command == f"export GLIBC_TUNABLES={tunables.HUGE_PAGES}"
        assert found.values["gain_at_least"] == 1.3

    def test_tunables_already_set_are_kept(self, monkeypatch):
        """Tunables that are already set stay in the line to set."""
        mine = "glibc.malloc.arena_max=2"
        found = self.of(monkeypatch, 1.3, GLIBC_TUNABLES=mine)
        assert f"={mine}:{tunables.HUGE_PAGES}" in found.command

    def test_no_certain_gain_sets_nothing(self, monkeypatch):
        """Without a certain gain there is no line to set."""
        found = self.of(monkeypatch, 0.99)
        assert (found.command, found.remedy) == ("", "")

    def test_another_c_library_is_not_measured(self, monkeypatch):
        monkeypatch.setattr(tunables.platform, "libc_ver", lambda: ("", ""))
        assert "not measured" in computation.memory().text

    def test_a_child_that_ends_is_told(self, monkeypatch):
        monkeypatch.setattr(subprocess_runner.sys, "executable", "/bin/false")
        with pytest.raises(NoChildError, match="The child ended by"):
            huge_pages.step_cost()

    def test_the_line_is_printed_unbroken(self, monkeypatch):
        found = self.of(monkeypatch, 1.3)
        monkeypatch.setattr(doctor, "all_findings", lambda *_: [found])
        assert f"\n{found.command}\n" in invoke(width=60).stdout


@pytest.mark.usefixtures("no_work")
def test_decisions_are_counted_by_place(store):
    """Decisions are counted by where they hold: here, other versions, elsewhere."""
    updated = dataclasses.replace(here(), versions=(("jax", "0.0.1"),))
    store.merge(document(here(), decision(), decision(with_batch(4))))
    store.merge(document(updated, decision()) | document(ELSEWHERE, decision()))
    finding = found()["decisions"]
    assert finding["state"] == "ok"
    assert finding["values"] == {"here": 2, "other versions": 1, "elsewhere": 1}


@pytest.mark.usefixtures("no_work")
def test_only_other_versions_are_a_warning(store):
    """Decisions of other library versions alone are a warning."""
    updated = dataclasses.replace(here(), versions=(("jax", "0.0.1"),))
    store.merge(document(updated, decision()))
    finding = found()["decisions"]
    assert finding["state"] == "warning"
    assert "keras-diagwise tune" in finding["remedy"]


@pytest.mark.usefixtures("no_work")
def test_unusable_files_are_counted(store, caplog):
    """Unusable files are counted, and some of them named."""
    batches = range(1, 8)
    store.merge(document(here(), *(decision(with_batch(n)) for n in batches)))
    files = sorted(path for path in store_files(store) if "environment" not in path)
    for path in files[:5]:
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"{ESCAPE}[red]no JSON")
    found_files, counted = (found()[name] for name in ("files", "decisions"))
    assert found_files["state"] == "warning"
    assert found_files["values"]["count"] == 5
    named = [os.path.basename(path) in found_files["text"] for path in files]
    assert sum(named) == configuration.MAX_NAMED
    assert "Remove them" in found_files["remedy"]
    assert counted["values"]["here"] == 2
    assert not caplog.records
    output = invoke().stdout
    assert "1 warning" in output
    assert ESCAPE not in output


def store_files(store):
    for folder, _, names in os.walk(store.location):
        yield from (os.path.join(folder, name) for name in names)


@pytest.mark.usefixtures("no_work")
def test_a_look_leaves_no_file(store):
    found()
    assert list(store_files(store)) == []


@pytest.mark.usefixtures("no_work")
def test_an_unwritable_store_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(dispatcher.planner, "store", Store(tmp_path / "file" / "store"))
    finding = found(code=1)["store"]
    assert finding["state"] == "error"
    assert "KERAS_DIAGWISE_STORE" in finding["remedy"]
    assert finding["values"]["writable"] is False


@pytest.mark.usefixtures("no_work")
def test_an_unreachable_url_is_an_error(
    monkeypatch,
):
    """An unreachable URL is an error that says where decisions are kept meanwhile."""
    pytest.importorskip("fsspec")
    remote = Store("memory://decisions/doctor")
    remote._folder._away_until = float("inf")
    monkeypatch.setattr(dispatcher.planner, "store", remote)
    finding = found(code=1)["store"]
    assert finding["state"] == "error"
    assert "kept on this machine until the URL can be written" in finding["text"]


@pytest.mark.usefixtures("no_work")
def test_an_unopenable_store_is_an_error(monkeypatch):
    """A store that can't be opened is an error, and the other checks go on."""
    monkeypatch.setenv("KERAS_DIAGWISE_STORE", "nonsense://user:secret@host/path")
    monkeypatch.setattr(dispatcher, "_planner", None)
    known = found(code=1)
    assert known["store"]["state"] == "error"
    assert known["store"]["remedy"]
    assert known["shipped"]["state"] == "ok"
    assert "decisions" not in known


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("as_json", [["--json"], []])
def test_nothing_secret_is_printed(monkeypatch, as_json):
    url = "memory://user:secret@host/path?key=secret"
    monkeypatch.setenv("KERAS_DIAGWISE_STORE", url)
    monkeypatch.setattr(dispatcher, "_planner", None)
    result = invoke(*as_json)
    assert "memory://host/path" in "".join(result.stdout.split())
    assert "secret" not in result.output


@pytest.mark.usefixtures("no_work")
def test_what_is_set_is_shown(monkeypatch):
    monkeypatch.setenv("KERAS_DIAGWISE_ON_MISS", "native")
    monkeypatch.setitem(vars(dispatcher.settings), "on_miss", None)
    known = found()
    assert known["on_miss"]["text"] == "native"
    assert "KERAS_DIAGWISE_ON_MISS=native" in known["variables"]["text"]
    assert "KERAS_DIAGWISE_STORE is not set" in known["variables"]["text"]


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("name", ["on_miss", "precision"])
def test_a_wrong_setting_is_an_error(monkeypatch, name):
    variable = f"KERAS_DIAGWISE_{name.upper()}"
    monkeypatch.setenv(variable, "never")
    monkeypatch.setitem(vars(dispatcher.settings), name, None)
    finding = found(code=1)[name]
    assert "'never'" in finding["text"]
    assert variable in finding["remedy"]


@pytest.mark.usefixtures("no_work")
def test_shipped_are_counted_by_source(monkeypatch):
    """Shipped decisions are counted by the source that each would be to the planner."""
    updated = dataclasses.replace(here(), versions=(("jax", "0.0.1"),))
    other = dataclasses.replace(here(), device_name="another")
    foreign = dataclasses.replace(here(), backend="other")
    shipped = Document()
    for environment in (here(), updated, other, foreign):
        shipped |= document(environment, decision())
    planner = "keras_diagwise_cli.diagnosis.configuration.shipped_document"
    monkeypatch.setattr(planner, lambda: shipped)
    finding = found()["shipped"]
    assert finding["values"] == {
        "decision": 1,
        "other versions": 1,
        "other device": 1,
        "none": 1,
    }
    assert "3 of 4 decisions" in finding["text"]
    monkeypatch.setattr(planner, lambda: document(foreign, decision()))
    finding = found()["shipped"]
    assert "0 of 1" in finding["text"]
    assert "keras-diagwise tune" in finding["remedy"]


@pytest.mark.usefixtures("no_work")
def test_nearest_known_device_is_named(monkeypatch):
    """The known device most like an unseen one is named."""
    others = (
        dataclasses.replace(here(), device_name=f"of {bits}", vector_bits=bits)
        for bits in (256, 512)
    )
    shipped = Document()
    for environment in others:
        shipped |= document(environment, decision())
    planner = "keras_diagwise_cli.diagnosis.configuration.shipped_document"
    monkeypatch.setattr(planner, lambda: shipped)
    for bits in (256, 512):
        unseen = dataclasses.replace(here(), device_name="unseen", vector_bits=bits)
        models = "keras_diagwise_cli.diagnosis.configuration.environment_of_models"
        monkeypatch.setattr(models, lambda unseen=unseen: unseen)
        text = found()["shipped"]["text"]
        assert f"The device most like this one: of {bits} (" in text
        assert f"{bits}-bit vectors" in text


@pytest.mark.usefixtures("no_work")
def test_an_unseen_gpu_is_a_warning(monkeypatch, tmp_path):
    """A GPU that the backend does not see is a warning."""
    if here().device_kind != "cpu":
        pytest.skip("the backend sees a device")
    monkeypatch.setattr(nvidia, "DRIVER", tmp_path)
    finding = found()["backend"]
    assert finding["state"] == "warning"
    assert "NVIDIA" in finding["remedy"]


def test_unimportable_backend_is_an_error(monkeypatch):
    """A backend that can't be imported is an error, shown with the versions."""

    def fail():
        raise UserError("Keras can't be imported (No module named 'x'). Install it")

    monkeypatch.setattr(doctor, "load_package", fail)
    known = found(code=1)
    assert set(known) == {"versions", "backend"}
    assert "No module named" in known["backend"]["text"]
    assert known["backend"]["remedy"] == "Install it."
    assert isinstance(invoke("--debug").exception, UserError)


def test_a_child_that_cant_start_is_an_error(monkeypatch):
    monkeypatch.setattr(
        subprocess_runner, "child_command", lambda _: ["/no/such/program"]
    )
    finding = computation.tuner()
    assert finding.state == "error"
    assert "/no/such/program" in finding.text
    assert "own process" in finding.remedy


def test_wrong_numbers_name_their_algorithm(monkeypatch):
    """Wrong numbers are reported by algorithm and pass."""
    right = Direct.kernel_gradient

    def wrong(self, *arguments):
        return 1.5 * right(self, *arguments)

    monkeypatch.setattr(Direct, "kernel_gradient", wrong)
    done = []
    finding = computation.algorithms(False, done.append)
    assert finding.state == "error"
    assert "direct, kernel_gradient: wrong numbers" in finding.text
    assert "forward" not in finding.text
    assert "report" in finding.remedy
    np.testing.assert_allclose(sum(done), 1)


def test_a_wrong_native_is_a_warning(monkeypatch):
    """Wrong numbers of native are a warning, since the tuner does not choose it."""

    def examine(self, task, candidate):
        off = float(isinstance(candidate, Native))
        return FirstRun(1.0, Error(off, 1e7 * off, 1e7 * off), 0.0)

    monkeypatch.setattr(Runner, "examine", examine)
    finding = computation.algorithms(False, lambda part: None)
    assert finding.state == "warning"
    assert finding.text.count("native, ") == finding.text.count("wrong numbers") == 3


def test_a_candidate_that_raises_is_named(monkeypatch):
    examine = Runner.examine

    def fail(self, task, candidate, *more):
        if isinstance(candidate, Direct):
            return FirstRun(failure="exception", reason="RuntimeError: [no]")
        return examine(self, task, candidate, *more)

    monkeypatch.setattr(Runner, "examine", fail)
    finding = computation.algorithms(False, lambda part: None)
    assert finding.state == "error"
    assert "direct, forward: exception: RuntimeError: [no]" in finding.text


def test_what_fails_is_a_finding_itself():
    finding = findings.found("store", lambda: {}["key"])
    assert (finding.subject, finding.state) == ("store", "error")
    assert "KeyError" in finding.text
