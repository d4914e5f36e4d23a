"""`keras-diagwise report`: what the page and the figures have, and what is refused."""

import html.parser
import json
import math
import os
import re
import sys

import keras
import pytest
from typer.testing import CliRunner

import keras_diagwise as kd
from keras_diagwise.decision import Comparison, Decision, Outcome
from keras_diagwise.models.environment import environment_of
from keras_diagwise.models.problems import uses_in
from keras_diagwise.problem import PASSES
from keras_diagwise_cli import app
from tests.cli import browser
from tests.cli.lines import refusal

pytestmark = pytest.mark.usefixtures("no_dense", "nothing_known")

WHEN = "2026-02-03T04:05:06+00:00"
HOSTILE = "<img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}<script>alert(2)"
SECONDS = {"first": 0.03, "second": 0.01, "third": 0.02}
"""Native's, of each pass of each layer; what runs takes a tenth of the first's, half
of the second's and all of the third's."""


def small_model(*names, **arguments):
    """Depthwise layers of these names, each on another shape, and a dense one."""
    outputs = inputs = keras.Input((16, 16, 4))
    for name in names:
        outputs = keras.layers.DepthwiseConv2D(3, name=name)(outputs)
    outputs = keras.layers.Conv2D(2, 1, name="dense")(outputs)
    model = keras.Model(inputs, outputs, **arguments)
    model.compile("sgd", "mse")
    return model


def decision(problem, native, chosen, reason="would take too long"):
    """What was measured of all passes: times of native and of direct."""
    outcomes = {
        "native": Outcome(native, 1e-7),
        "direct": Outcome(chosen, 2e-7, native / chosen),
        "diagonal": Outcome(failure="pruned", reason=reason),
    }
    comparison = Comparison(outcomes, WHEN, roofline=native / 100)
    return Decision(problem, dict.fromkeys(PASSES, comparison))


def measure_all(store, model, batch_size=2, reason="would take too long"):
    """Puts a decision for each layer in the store."""
    shares = iter((0.1, 0.5, 1.0))
    natives = iter(SECONDS.values())
    for use in uses_in(model, batch_size):
        if use.problem.groups > 1:
            native = next(natives)
            found = decision(use.problem, native, native * next(shares), reason)
            store.put(environment_of(model), found)


@pytest.fixture
def file(tmp_path, store):
    """A model of three layers that were measured for batches of 2."""
    model = small_model(*SECONDS)
    measure_all(store, model)
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


@pytest.fixture
def unmeasured(tmp_path):
    small_model(*SECONDS).save(tmp_path / "new one.keras")
    return tmp_path / "new one.keras"


def invoke(*arguments):
    words = ["report", *map(str, arguments)]
    return CliRunner().invoke(app, words, env={"COLUMNS": "80"})


def printed(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def figures(*arguments):
    return json.loads(printed(*arguments, "--json"))


def page(path, *arguments):
    """The page that is written."""
    target = path.with_suffix(".html")
    printed(path, "-o", target, *arguments)
    return target


class Reader(html.parser.HTMLParser):
    """The names of a page's elements and attributes, and its texts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.attributes, self.texts = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def read(path):
    return Reader(path.read_text(encoding="utf-8"))


def test_the_figures_are_what_was_measured(file):
    found = figures(file)
    assert [each["path"] for each in found["layers"]] == list(SECONDS)
    assert (found["batch_size"], found["batch_size_is"]) == (2, "measured")
    for layer, share in zip(found["layers"], (0.1, 0.5, 1.0), strict=True):
        native = SECONDS[layer["path"]]
        assert layer["rung"] == "decision"
        assert layer["is_measured_here"]
        assert math.isclose(layer["native_seconds"], 3 * native)
        assert math.isclose(layer["seconds"], 3 * native * share)
        assert math.isclose(layer["least"], 3 * native / 100)
        for each in layer["passes"].values():
            assert each["algorithm"] == ("native" if share == 1.0 else "direct")
            names = [candidate["name"] for candidate in each["candidates"]]
            assert set(names[:2]) == {"direct", "native"}
            assert names[2] == "diagonal"
    totals = found["totals"]
    assert (totals["layers"], totals["measured"]) == (3, 3)
    for name in ("native_seconds", "seconds", "least"):
        parts = [layer[name] for layer in found["layers"]]
        assert math.isclose(totals[name], sum(parts))
        by_pass = [each[name] for each in totals["passes"].values()]
        assert math.isclose(totals[name], sum(by_pass))
    (left,) = found["left_alone"]
    assert (left["path"], left["reason"]) == ("dense", "one group")
    assert found["environment"]["backend"] == keras.backend.backend()


def test_the_page_is_complete(file):
    """The page has every layer, pass, candidate and reason."""
    text = read(page(file)).text
    for name in (*SECONDS, "dense", "would take too long", "forward", "2.00×"):
        assert name in text
    assert text.count("kernel gradient:") == len(SECONDS)
    assert text.count("pruned: would take too long") == 3 * len(SECONDS)
    assert "3 of 3" in text
    assert "of the 3 layers" not in text


def test_the_page_is_one_file(file):
    content = page(file).read_text(encoding="utf-8")
    found = Reader(content)
    assert found.elements.count("script") == 1
    assert not found.attributes & {"src", "href", "srcset", "action"}
    assert not set(found.elements) & {"link", "iframe", "img", "object", "base"}
    assert "url(" not in content
    assert "@import" not in content


def test_terminal_totals_fit_80_columns(file, tmp_path):
    output = printed(file, "-o", tmp_path / "p.html")
    assert "3 of 3 layers measured" in output
    assert re.search(r"all passes +180 ms +84 ms +2.14× +1.8 ms", output)
    assert output.splitlines()[-1] == f"Written to {tmp_path / 'p.html'}"
    table = [line for line in output.splitlines() if "/" not in line]
    assert max(map(len, table)) <= 80
    assert "\x1b" not in output


def test_without_decisions_it_names_tune(unmeasured):
    """Without decisions, the page and the terminal give the command that tunes."""
    found = figures(unmeasured)
    assert (found["batch_size"], found["batch_size_is"]) == (32, "default")
    assert found["totals"]["measured"] == 0
    assert found["totals"]["seconds"] is None
    command = f"keras-diagwise tune '{unmeasured}' --batch-size 32"
    assert found["tune"] == command
    text = read(page(unmeasured)).text
    assert "None of the 3 layers have been measured for this machine" in text
    assert command in "".join(read(unmeasured.with_suffix(".html")).texts)
    assert text.count("not measured here") == 3
    assert command in printed(unmeasured, "-o", unmeasured.with_suffix(".html"))


def test_partial_measurement_is_counted(tmp_path, store):
    """A model measured in part is reported with the number of layers measured."""
    model = small_model(*SECONDS)
    for use in uses_in(model, 2)[:2]:
        store.put(environment_of(model), decision(use.problem, 0.2, 0.1))
    model.save(tmp_path / "part.keras")
    output = printed(tmp_path / "part.keras", "-o", tmp_path / "part.html")
    assert "2 of 3 layers measured for this machine" in output
    assert "To measure the others: keras-diagwise tune" in output
    assert "2 of the 3 layers have been measured" in read(tmp_path / "part.html").text


def test_tune_command_has_relevant_options(monkeypatch):
    """The command to tune repeats the options that matter to it."""

    def small(weights, input_shape, include_top):
        inputs = keras.Input(input_shape)
        return keras.Model(inputs, keras.layers.DepthwiseConv2D(3)(inputs))

    monkeypatch.setattr(keras.applications, "MobileNet", small)
    options = ["--image-size", 40, "--batch-size", 7, "--no-jit-compile"]
    assert figures("MobileNet", *options)["tune"] == (
        "keras-diagwise tune MobileNet --image-size 40 --batch-size 7 --no-jit-compile"
    )


def test_nearest_measurement_is_told_apart(file):
    """A measurement of another problem is shown as such."""
    found = figures(file, "--batch-size", 3)
    for layer in found["layers"]:
        assert layer["rung"] == "nearest"
        assert not layer["is_measured_here"]
        assert layer["seconds"] is None
        assert layer["measured_problem_text"].startswith("2×")
        assert set(layer["passes"]) == set(PASSES)
    assert found["totals"]["measured"] == 0
    text = read(page(file, "--batch-size", "3")).text
    assert "The measurements below are of 2×16×16×4" in text
    assert "None of the 3 layers" in text


def test_a_layers_own_plan_is_shown(tmp_path, store):
    """A plan given on the layer is shown with its measurement."""
    model = small_model(*SECONDS)
    measure_all(store, model)
    kd.convert(model, plan="direct", verbose=0)
    model.save(tmp_path / "pinned.keras")
    layers = figures(tmp_path / "pinned.keras")["layers"]
    assert {each["rung"] for each in layers} == {"layer"}
    assert {each["plan"] for each in layers} == {"direct"}
    third = layers[2]
    assert math.isclose(third["seconds"], third["native_seconds"])
    assert (
        "The plan was given on the layer" in read(page(tmp_path / "pinned.keras")).text
    )


def test_an_unmeasured_pass_is_left_out(tmp_path, store):
    model = small_model("first")
    (problem,) = [u.problem for u in uses_in(model, 2) if u.problem.groups > 1]
    known = decision(problem, 0.4, 0.1)
    forward = {"forward": known.passes["forward"]}
    store.put(environment_of(model), Decision(problem, forward))
    model.save(tmp_path / "model.keras")
    found = figures(tmp_path / "model.keras")
    (layer,) = found["layers"]
    assert set(layer["passes"]) == {"forward"}
    assert layer["seconds"] == 0.1
    assert found["totals"]["passes"]["kernel_gradient"]["seconds"] is None
    assert "input gradient:" not in read(page(tmp_path / "model.keras")).text


def test_times_that_are_unknown_are_dashes(tmp_path, store):
    """The layer's own plan is one that tuning pruned: no pass has a time for it."""
    model = small_model("first")
    measure_all(store, model)
    kd.convert(model, plan="diagonal", verbose=0)
    model.save(tmp_path / "model.keras")
    text = read(page(tmp_path / "model.keras")).text
    assert "native – chosen – gain – roofline – layers measured 1 of 1" in text


def test_a_model_without_layers_has_a_page(tmp_path):
    """A model in which no layer can run by a plan has a page too."""
    small_model().save(tmp_path / "dense.keras")
    assert (
        "No layer of this model can run by a plan"
        in read(page(tmp_path / "dense.keras")).text
    )


def test_the_models_file_is_not_changed(file):
    before = file.read_bytes()
    page(file)
    assert file.read_bytes() == before


@pytest.fixture
def hostile(tmp_path, store):
    """A model whose names, and those of its file and of what was measured, are HTML
    that would run: Keras permits all but a slash in a layer's name."""
    names = [f"{i}{HOSTILE}" for i in range(3)]
    try:
        model = small_model(*names, name=HOSTILE)
    except ValueError as error:
        pytest.skip(f"the backend permits no such names: {error}")
    measure_all(store, model, reason=HOSTILE)
    path = tmp_path / f"{HOSTILE}.keras"
    model.save(path)
    return path


def test_hostile_names_are_texts(hostile):
    found = read(page(hostile))
    assert found.elements.count("script") == 1
    assert "img" not in found.elements
    assert not {each for each in found.attributes if each.startswith("on")}
    assert all(f"{i}{HOSTILE}" in found.text for i in range(3))
    assert f"pruned: {HOSTILE}" in found.text
    assert f"{HOSTILE}.keras" in found.text


def refused(*arguments):
    """The one line that the command ends with."""
    return refusal(invoke(*arguments))


def test_a_wrong_argument_is_one_line(file, tmp_path):
    """A wrong argument is one line with a remedy."""
    assert "-o report.html" in refused(file)
    assert "does not exist" in refused(file, "-o", tmp_path / "no" / "page.html")
    assert "not a regular file" in refused(file, "-o", tmp_path)
    assert "would replace the model" in refused(file, "-o", file)
    assert "MobileNetV2" in refused("MobileNetV9", "-o", tmp_path / "page.html")
    assert "report --help" in refused(file, "--batch-size", "0")
    assert not list(tmp_path.glob("*.html"))


needs_browser = pytest.mark.skipif(
    browser.executable() is None, reason="there is no Chromium"
)


@pytest.fixture(scope="module")
def chromium():
    with browser.opened_browser() as opened:
        yield opened


ORDER = "[...document.querySelectorAll('.unfold')].map(each => each.textContent)"
HIDDEN = "[...document.querySelectorAll('.details')].map(each => each.hidden)"
OPEN = "[...document.querySelectorAll('.unfold')].map(each => each.ariaExpanded)"
WIDTH = "document.documentElement.scrollWidth"


def click(chromium, selector):
    chromium.evaluate(f"document.querySelector({json.dumps(selector)}).click()")


def sort(chromium, key):
    click(chromium, f"th[data-sort={key}] button")
    head = f"document.querySelector('th[data-sort={key}]')"
    return chromium.evaluate(f"{head}.ariaSort"), chromium.evaluate(ORDER)


@needs_browser
def test_a_click_sorts_another_reverses(chromium, file):
    """A click on a column's head sorts by it, and another reverses the order."""
    chromium.open(page(file))
    by_native = ["first", "third", "second"]
    by_gain = ["first", "second", "third"]
    assert chromium.evaluate(ORDER) == list(SECONDS)
    assert sort(chromium, "native") == ("descending", by_native)
    assert sort(chromium, "native") == ("ascending", by_native[::-1])
    assert sort(chromium, "gain") == ("descending", by_gain)
    assert sort(chromium, "chosen") == ("descending", ["third", "second", "first"])
    assert sort(chromium, "name") == ("ascending", sorted(SECONDS))
    sorts = "[...document.querySelectorAll('th[aria-sort]')].map(each => each.ariaSort)"
    assert chromium.evaluate(sorts).count("none") == 4


@needs_browser
def test_the_keyboard_unfolds_a_layer(chromium, file):
    """The keyboard unfolds a layer, and its details move with it when sorted."""
    chromium.open(page(file))
    assert chromium.evaluate(HIDDEN) == [True] * 3
    chromium.evaluate("document.querySelectorAll('.unfold')[1].focus()")
    chromium.press("Enter", 13, "\r")
    assert chromium.evaluate(HIDDEN) == [True, False, True]
    assert chromium.evaluate(OPEN) == ["false", "true", "false"]
    sort(chromium, "native")
    assert chromium.evaluate(HIDDEN) == [True, True, False]
    chromium.press("Tab", 9)
    click(chromium, ".all")
    assert chromium.evaluate(HIDDEN) == [False] * 3
    click(chromium, ".all")
    assert chromium.evaluate(HIDDEN) == [True] * 3


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_and_loads_nothing(chromium, file, width):
    """The page fits its width and requests nothing but itself."""
    target = page(file)
    chromium.look(width)
    chromium.requested.clear()
    chromium.open(target)
    click(chromium, ".all")
    assert chromium.evaluate(WIDTH) <= width
    assert chromium.requested == [target.resolve().as_uri()]
    assert not chromium.complaints


@needs_browser
def test_hostile_names_run_nothing(chromium, hostile):
    chromium.complaints.clear()
    chromium.open(page(hostile))
    click(chromium, ".all")
    names = chromium.evaluate(ORDER)
    assert names == [f"{i}{HOSTILE}" for i in range(3)]
    assert not chromium.complaints


def test_no_tune_advice_for_unknown_sizes(tmp_path):
    """A layer of unknown spatial shape is listed without advice to tune it."""
    inputs = keras.Input((None, None, 4))
    model = keras.Model(inputs, keras.layers.DepthwiseConv2D(3)(inputs))
    model.save(tmp_path / "sizes.keras")
    output = printed(tmp_path / "sizes.keras", "-o", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    for shown in (output, text):
        assert "1 layer (the spatial shape is not known)" in shown
        assert "keras-diagwise tune" not in shown


OWN_LAYERS = """
import keras

@keras.saving.register_keras_serializable("own")
class OwnLayer(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.layers.DepthwiseConv2D(3)

    def call(self, x):
        return self.inner(x)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A file of a model with a layer of the user's own, of a module beside it."""
    (tmp_path / "own_layers_of_a_test.py").write_text(OWN_LAYERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    names = {}
    exec(OWN_LAYERS, names)
    model = keras.Sequential([keras.Input((8, 8, 2)), names["OwnLayer"](name="own")])
    model.save("own.keras")
    keras.saving.get_custom_objects().pop("own>OwnLayer")
    yield tmp_path / "own.keras"
    sys.modules.pop("own_layers_of_a_test", None)
    keras.saving.get_custom_objects().pop("own>OwnLayer", None)


def test_custom_classes_come_by_import(own):
    """Custom classes come from the module that `--import` names."""
    assert "--import" in refusal(invoke(own, "-o", "page.html"))
    found = figures(own, "--import", "own_layers_of_a_test")
    assert [each["stock_class"] for each in found["layers"]] == ["DepthwiseConv2D"]
    assert "--import own_layers_of_a_test" in found["tune"]


def test_an_unimportable_module_is_named(own):
    line = refusal(invoke(own, "--import", "no_such_module", "-o", "page.html"))
    assert "no_such_module" in line
    assert "--import" in line


def test_an_unwritable_folder_is_named_first(file, tmp_path, monkeypatch):
    """A folder that can't be written is named before anything is loaded."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    line = refusal(invoke(file, "-o", tmp_path / "page.html"))
    assert "in a folder that can't be written" in line


def test_shipped_is_not_called_measured_here(file):
    """Decisions that came with the package are not said to be of this machine."""
    text = page(file).read_text()
    assert "or on the same device and versions elsewhere" in text
    assert "measured on this machine" not in text
