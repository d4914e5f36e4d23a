"""What the pages of the documentation show holds: their code runs, their commands
exist, and every public name is described."""

import json
import re

import keras
import pytest
from typer.main import get_command

import keras_diagwise
from keras_diagwise.planning import planner
from keras_diagwise.planning.source import PlanSource
from keras_diagwise_cli import app
from tests.docs.blocks import PAGES, backends_of, blocks_of, code_before, pages

BACKEND = keras.backend.backend()
WITH_PYTHON = [page for page in pages() if list(blocks_of(page, "python"))]
COMMANDS = [
    pytest.param(line, id=f"{page.stem}: {line.partition('#')[0].strip()}")
    for page in pages()
    for block in blocks_of(page, "shell")
    if block.backends != ()
    for line in block.code.splitlines()
    if re.match(r"(\w+=\S+ )*keras-diagwise\b", line)
]


@pytest.fixture(autouse=True)
def as_before(tmp_path, monkeypatch):
    """A folder and a store of its own, and the settings of before afterwards."""
    monkeypatch.chdir(tmp_path)
    decisions = keras_diagwise.decisions
    names = ("location", "on_miss", "precision")
    before = {name: getattr(decisions, name) for name in names}
    decisions.location = tmp_path / "store"
    yield
    for name, value in before.items():
        setattr(decisions, name, value)


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page):
    """The code of a page runs from its first block to its last."""
    names = {"__name__": "__main__"}
    keras.utils.set_random_seed(0)
    exec(code_before(page), names)
    for block in blocks_of(page, "python"):
        if block.backends is None or BACKEND in block.backends:
            code = "\n" * (block.line - 1) + block.code
            exec(compile(code, str(page), "exec"), names)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_exist_with_their_options(line):
    """Every command on a page exists, with the options that the page shows."""
    words = line.partition("#")[0].split()
    command = get_command(app)
    for word in words[words.index("keras-diagwise") + 1 :]:
        if word.startswith("--"):
            known = {name for each in command.params for name in each.opts}
            assert word.partition("=")[0] in known | {"--help"}, word
        elif word in getattr(command, "commands", ()):
            command = command.commands[word]
    assert not getattr(command, "commands", ()) or words[-1].startswith("--")


@pytest.mark.parametrize("name", keras_diagwise.__all__)
def test_public_names_are_in_the_reference(name):
    text = (PAGES / "api.md").read_text(encoding="utf-8")
    named = getattr(keras_diagwise, name)
    described = type(named) if name == "decisions" else named
    paths = (
        f"keras_diagwise.{name}",
        f"{described.__module__}.{described.__qualname__}",
    )
    assert set(paths) & set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))


def test_an_unknown_marker_is_refused():
    with pytest.raises(ValueError, match="where it runs"):
        backends_of("runs: nowhere")
    assert backends_of("runs on: jax, torch") == ("jax", "torch")
    assert backends_of("not run: it needs two machines") == ()


MARGINS = {
    PlanSource.DECISION: planner.MARGIN_MEASURED,
    PlanSource.OTHER_VERSIONS: planner.MARGIN_OTHER_VERSIONS,
    PlanSource.NEAREST: planner.MARGIN_NEAREST,
    PlanSource.OTHER_DEVICE: planner.MARGIN_OTHER_DEVICE,
}


@pytest.mark.parametrize("source", PlanSource)
def test_sources_of_a_plan_match_the_planner(source):
    """The sources of a plan in the guide are the planner's, with the same margins."""
    text = (PAGES / "tuning.md").read_text(encoding="utf-8")
    row = rf"^\| `{source}` \| (.*) \| ([0-9.]*).*\|$"
    ((description, margin),) = re.findall(row, text, re.MULTILINE)
    assert description == source.description
    assert (float(margin) if margin else None) == MARGINS.get(source)


def test_tuning_times_match_the_measurement():
    """The tuning times in the guide to fleets are the measured ones."""
    results = PAGES.parent / "tuning/results/acceptance-jax.json"
    tune = json.loads(results.read_text(encoding="utf-8"))["tune"]
    first, second = tune["figures"]["seconds"]
    text = " ".join((PAGES / "fleets.md").read_text(encoding="utf-8").split())
    assert f"took {first:.0f} s on a CPU" in text
    assert f"the second call took {second:.2f} s" in text


def test_readme_gains_match_the_measurement():
    """A model's times and gains in the README are the measured ones."""
    text = " ".join((PAGES.parent / "README.md").read_text(encoding="utf-8").split())
    results = PAGES.parent / "tuning/results/acceptance-jax.json"
    figures = json.loads(results.read_text(encoding="utf-8"))["model"]["figures"]
    for name, words in (("train_step", "training step"), ("predict", "prediction")):
        each = figures[name]
        times = f"{each['stock_ms']:.0f} ms | {each['converted_ms']:.0f} ms"
        assert f"| {words} | {times} | {each['speedup']:.1f}× |" in text
