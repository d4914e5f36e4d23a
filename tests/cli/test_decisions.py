"""`keras-diagwise decisions`: what it prints, and how it ends."""

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keras_diagwise.decision import Comparison, Decision, Outcome
from keras_diagwise.models.environment import environment_of_models
from keras_diagwise.problem import PASSES
from keras_diagwise.storage.document import Document
from keras_diagwise_cli import app
from tests.algorithms.suite import depthwise
from tests.cli.lines import only_line
from tests.samples import (
    ELSEWHERE,
    HERE,
    MEASURED,
    PROBLEM,
    decision,
    document,
    with_batch,
)

ESCAPE = "\x1b"
OUTCOMES = {
    "native": Outcome(seconds=0.0123, error=1.2e-7),
    "direct": Outcome(seconds=0.00456, error=2.3e-7, gain=2.5),
    "diagonal:64": Outcome(failure="pruned", reason="needs 9 times the arithmetic"),
    "diagonal:8": Outcome(failure="timeout", reason="over 30 s"),
}
FULL = Decision(PROBLEM, {name: Comparison(OUTCOMES, MEASURED) for name in PASSES})


@pytest.fixture(autouse=True)
def variable(store, monkeypatch):
    monkeypatch.setenv("KERAS_DIAGWISE_STORE", store.location)


def invoke(*arguments, width=140, answer=None):
    return CliRunner().invoke(
        app, ["decisions", *arguments], env={"COLUMNS": str(width)}, input=answer
    )


def printed(*arguments, **keywords):
    result = invoke(*arguments, **keywords)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments, code=2, **keywords):
    """The one line that a command ends with."""
    result = invoke(*arguments, **keywords)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return only_line(result.stderr)


@pytest.mark.parametrize("width", [80, 140])
def test_list_has_a_table_per_environment(store, width):
    store.merge(document(HERE, FULL, decision(with_batch(4))))
    store.merge(document(ELSEWHERE, decision(depthwise((9,), 8, (3,)))))
    output = printed("list", width=width)
    for named in ("here (cpu, 2 cores), xla", "elsewhere (cpu", "jax 1.2.3"):
        assert named in output
    for problem in (PROBLEM, with_batch(4), depthwise((9,), 8, (3,))):
        assert output.count(problem.digest[:8]) == 1
        assert str(problem) in output
    assert "2.70×" in output
    assert output.count("2026-01-02") == 3
    assert max(map(len, output.splitlines())) <= width


def test_the_list_as_json_has_the_same(store):
    store.merge(document(HERE, FULL))
    (values,) = json.loads(printed("list", "--json"))
    assert values["environment"] == HERE.to_dict()
    (each,) = values["decisions"]
    assert each["problem"] == PROBLEM.to_dict()
    assert each["plan"] == "direct"
    assert each["gain"] == pytest.approx(0.0123 / 0.00456)
    assert each["measured"] == MEASURED


def test_an_empty_list_says_where_and_how_on(store):
    output = printed("list", width=80)
    assert store.location in output
    assert "keras-diagwise tune" in output
    assert json.loads(printed("list", "--json")) == []


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("sought", [PROBLEM.digest[:6], "8x28X28", str(PROBLEM)])
def test_show_has_every_candidates_outcome(store, width, sought):
    """`decisions show` has every candidate with its outcome."""
    store.merge(document(HERE, FULL, decision(with_batch(4))))
    output = printed("show", sought, width=width)
    for name in PASSES:
        assert f"{name}: direct" in output
    words = " ".join(output.split())
    for named in ("12.3 ms", "4.56 ms", "2.70×", "2.50×", "1.2e-07", "timeout: over"):
        assert output.count(named) == 3, named
    assert words.count("pruned: needs 9 times the arithmetic") == 3
    assert str(with_batch(4)) not in output
    assert max(map(len, output.splitlines())) <= width


def test_show_says_why_native_was_preferred(store):
    overruled = Comparison(OUTCOMES, MEASURED, overruled="the whole step was slower")
    store.merge(document(HERE, Decision(PROBLEM, {"forward": overruled})))
    output = printed("show", PROBLEM.digest)
    assert "forward: native" in output
    assert "the whole step was slower" in output


def test_show_as_json_is_a_document(store):
    one = document(HERE, FULL)
    store.merge(one | document(HERE, decision(with_batch(4))))
    assert Document.from_text(printed("show", PROBLEM.digest, "--json")) == one


def test_show_without_a_match_is_one_line(store):
    """`decisions show` of an unknown problem is one line that names `list`."""
    line = refused("show", "[red]7×7")
    assert "'[red]7×7'" in line
    assert "keras-diagwise decisions list" in line


def test_foreign_text_cant_harm_a_terminal(store):
    """Text from a foreign document sends no control characters to the terminal."""
    nasty = f"{ESCAPE}]0;owned\x07[red]\r\n"
    outcomes = {
        "native": Outcome(seconds=1.0),
        nasty: Outcome(failure="crash", reason=nasty),
    }
    measured = Comparison(outcomes, MEASURED, overruled=nasty)
    store.merge(document(HERE, Decision(PROBLEM, {"forward": measured})))
    for output in (printed("list"), printed("show", PROBLEM.digest)):
        assert ESCAPE not in output
        assert "\x07" not in output
    assert "[red]" in output


def test_export_and_import_round_trip(store, tmp_path):
    one = document(HERE, FULL, decision(with_batch(4)))
    store.merge(one)
    path = tmp_path / "document.json"
    assert "2 decisions written" in printed("export", str(path))
    assert Document.read(path) == one
    assert "2 decisions removed" in printed("clear", "--yes")
    assert "2 decisions new or changed" in printed("import", str(path))
    assert "0 decisions new or changed" in printed("import", str(path))
    assert store.document() == one


def test_contribute_offers_own_measurements(store, tmp_path):
    """`decisions contribute` writes this device's measurements, and a text to send."""
    here = environment_of_models()
    other = dataclasses.replace(here, versions=(("jax", "0.1"),))
    mine = document(here, FULL, decision(with_batch(4))) | document(other, FULL)
    store.merge(mine | document(ELSEWHERE, FULL))
    path = tmp_path / "mine.json"
    output = printed("contribute", str(path))
    assert Document.read(path) == mine
    assert f"Decisions for {here.device}" in output
    assert "Attached: mine.json" in output
    assert f"| {here} | 2 | 2 |" in output
    assert f"| {other} | 1 | 1 |" in output
    assert told("contribute", str(path))["written"] == 3


def test_contribute_without_measurements(store, tmp_path):
    """Where nothing was measured, `contribute` writes no file and names `tune`."""
    store.merge(document(ELSEWHERE, FULL))
    assert "keras-diagwise tune" in refused("contribute", str(tmp_path / "mine.json"))
    assert not (tmp_path / "mine.json").exists()


@pytest.mark.parametrize("command", ["export", "import"])
def test_a_path_that_cant_be_is_one_line(command, tmp_path):
    line = refused(command, str(tmp_path))
    assert "FILE" in line
    assert "path" not in line.replace(str(tmp_path), "")


def test_a_hostile_file_is_one_line(tmp_path, store):
    (tmp_path / "hostile.json").write_text('{"format": "else"}')
    line = refused("import", str(tmp_path / "hostile.json"))
    assert "format='else'" in line
    assert not len(store.document())


def test_path_prints_the_location_alone(store):
    assert printed("path") == f"{store.location}\n"


def test_clear_asks(store):
    store.merge(document(HERE, FULL))
    assert "nothing was removed" in refused("clear", answer="n\n", code=130)
    assert "nothing was removed" in invoke("clear", answer="").stderr
    assert len(store.document()) == 1
    output = printed("clear", answer="y\n")
    assert "Remove 1 decision from" in output
    assert "1 decision removed" in output
    assert not len(store.document())
    assert printed("clear") == f"0 decisions removed from {store.location}\n"


def test_clear_asks_for_what_it_cant_read(store):
    """A later version's decisions are not removed without a question."""
    store.merge(document(HERE, FULL))
    (path,) = Path(store.location).glob("*/*/*-*.json")
    path.write_bytes(path.read_bytes().replace(b'sion": 1', b'sion": 2'))
    assert "nothing was removed" in refused("clear", answer="n\n", code=130)
    assert path.exists()
    output = printed("clear", answer="y\n")
    assert "Remove 1 decision from" in output
    assert not path.exists()


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_names_the_commands(arguments):
    output = printed(*arguments)
    for name in ("list", "show", "export", "contribute", "import", "path", "clear"):
        assert f"│ {name} " in output


def test_a_wrong_command_is_one_line():
    assert "'remove'" in refused("remove")


def told(*arguments):
    return json.loads(printed(*arguments, "--json"))


def test_what_a_command_did_is_json_too(store, tmp_path):
    store.put(HERE, decision())
    file = tmp_path / "decisions.json"
    assert told("export", str(file)) == {"written": 1, "file": str(file)}
    assert told("path") == {"location": store.location}
    gone = {"removed": 1, "location": store.location}
    assert told("clear", "--yes") == gone
    back = {"changed": 1, "location": store.location}
    assert told("import", str(file)) == back


def test_a_question_is_not_among_the_json(store):
    store.put(HERE, decision())
    output = printed("clear", "--json", answer="y\n")
    assert "Remove" not in output
    assert json.loads(output[output.index("{") :])["removed"] == 1
