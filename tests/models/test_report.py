"""The tuning report: its table, its closing lines, its JSON."""

import dataclasses
import io
import json

import pytest
import rich.console

from keras_diagwise.decision import Comparison, Outcome
from keras_diagwise.models.report import ModelCheck, Row, TuningReport
from keras_diagwise.problem import PASSES
from tests.samples import HERE, MEASURED, PROBLEM, with_batch

ESCAPE = "\x1b"
TIMED = {
    "native": Outcome(seconds=0.02, error=1e-7),
    "direct": Outcome(seconds=0.004, error=2e-7, gain=4.5),
}
PRUNED = Outcome(failure="pruned", reason="needs 9 times the arithmetic")


def row(winner="direct", layers=("first",), name="forward", problem=PROBLEM, **more):
    """A pass whose least possible time is 1 ms."""
    outcomes = TIMED | more.pop("outcomes", {})
    comparison = Comparison(outcomes, MEASURED, 0.001, **more)
    return Row(layers, problem, name, winner, comparison)


def report(*rows, **values):
    return TuningReport(HERE, rows, **values)


def printed(one, width=80):
    """What a console of some width shows, without styles."""
    console = rich.console.Console(file=io.StringIO(), width=width)
    console.print(one)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    return text


def flat(one, width=80):
    return " ".join(printed(one, width).split())


@pytest.mark.parametrize("width", [60, 80, 140])
def test_each_pass_has_its_figures(width):
    rows = [row(name=name) for name in PASSES]
    text = printed(report(*rows), width)
    for name in ("forward", "input gradient", "kernel gradient"):
        (line, total) = (each for each in text.splitlines() if f"{name} " in each)
        for figure in ("direct", " 4 ", " 20 ", "5.0×", *["25%"] * (width > 60)):
            assert figure in line, (figure, line)
        assert "5.0×" in total
    assert text.count("first") == 1
    assert text.count("native  gain") == 1
    assert ("least " in text.partition("\n\n")[0]) == (width == 140)
    assert ("near: " in text) == (width > 60)


def test_totals_count_every_run_of_a_layer():
    """Totals count a layer as often as a step runs it.

    They leave out problems that a trace of another model has left to measure.
    """
    one = report(
        row(layers=("a", "b", "c")),
        row(layers=(), problem=with_batch(4)),
        row(name="kernel_gradient"),
        row(winner="native", name="kernel_gradient", problem=with_batch(4)),
    )
    assert one.totals["forward"] == pytest.approx(
        {"seconds": 3 * 0.004, "native_seconds": 3 * 0.02, "least": 3 * 0.001}
    )
    assert one.totals["kernel_gradient"]["seconds"] == pytest.approx(0.024)


def test_totals_need_the_time_of_native():
    """A pass for which native was not timed is in no total."""
    outcomes = {"native": Outcome(failure="crash", reason="SIGSEGV")}
    assert report(row(outcomes=outcomes)).totals == {}


def test_json_has_all_of_it():
    one = report(
        row(outcomes={"diagonal:64": PRUNED}),
        undecided=("kernel gradient of it",),
        skipped=(("second", "not called yet"),),
        measured=1,
        seconds=2.5,
        ended="budget",
        model=ModelCheck(0.2, 0.1, 2.0),
    )
    values = json.loads(one.to_json())
    assert values == one.to_dict()
    (each,) = values["rows"]
    assert each["layers"] == ["first"]
    assert each["problem"] == PROBLEM.to_dict()
    assert (each["winner"], each["seconds"]) == ("direct", 0.004)
    assert (each["native_seconds"], each["least"]) == (0.02, 0.001)
    assert each["outcomes"]["diagonal:64"] == {
        "failure": "pruned",
        "reason": "needs 9 times the arithmetic",
    }
    assert values["environment"] == HERE.to_dict()
    assert values["skipped"] == {"second": "not called yet"}
    assert (values["ended"], values["measured"]) == ("budget", 1)
    assert values["model"]["speedup"] == 2.0


def test_long_names_fold():
    name = "a_layer_with_a_name_as_long_as_one_that_was_made_by_a_program_" * 2
    one = report(*(row("diagonal:32:split", (name,), each) for each in PASSES))
    for width in (60, 80):
        assert name in "".join(printed(one, width).split())
        assert "diagonal:32:split" in printed(one, width)


@pytest.mark.parametrize("width", [80, 140])
def test_names_can_do_nothing_to_a_terminal(width):
    names = ("[red]x", f"{ESCAPE}]0;owned\x07")
    rows = [row(layers=names, name=name) for name in PASSES]
    text = printed(report(*rows, skipped=(("[bold]y", "no"),)), width)
    assert "[red]x" in text
    assert "Skipped [bold]y: no." in text
    assert ESCAPE not in text
    assert "\x07" not in text


def test_an_empty_report_says_so():
    text = flat(report())
    assert "nothing to measure" in text
    assert "winner" not in text
    assert json.loads(report().to_json())["rows"] == []


@pytest.mark.parametrize(
    ("ended", "words"), [("budget", "The budget is spent."), ("interrupted", "Interr")]
)
def test_undecided_passes_are_counted(ended, words):
    """Undecided passes are counted, and the report says how to go on."""
    undecided = ("input gradient of it", "kernel gradient of it")
    text = flat(report(row(), undecided=undecided, measured=1, ended=ended))
    assert words in text
    assert "Not decided yet: 2 passes. Run `tune` again to continue." in text
    assert "1 pass measured, 0 known before" in text
    assert "nothing to measure" not in flat(report(undecided=undecided, ended=ended))


def test_what_was_known_is_counted():
    rows = [row(name=name) for name in PASSES]
    assert "1 pass measured, 2 known before" in flat(report(*rows, measured=1))


def test_untimed_candidates_are_counted():
    """Candidates without a time are counted by type."""
    outcomes = {"diagonal:64": PRUNED, "diagonal:32": PRUNED}
    text = flat(report(row(outcomes=outcomes)))
    assert "Not timed: 2 pruned." in text
    assert "keras-diagwise decisions show" in text
    assert "failed in" not in text


def test_failures_are_named_with_the_reason():
    wrong = Outcome(failure="wrong numbers", reason="off by [3]")
    outcomes = {f"diagonal:{2**n}": wrong for n in range(7)}
    text = flat(report(row(outcomes=outcomes)))
    assert f"diagonal:1 failed in the forward of {PROBLEM}: wrong numbers: " in text
    assert "off by [3]" in text
    assert text.count("failed in the") == 5
    assert "and 2 more" in text


def test_a_native_that_failed_is_said_so():
    outcomes = {"native": Outcome(failure="wrong numbers", reason="off by 3")}
    text = flat(report(row(outcomes=outcomes, name="kernel_gradient")))
    assert f"native failed in the kernel gradient of {PROBLEM}: wrong numbers" in text


def test_an_overruled_pass_is_reported():
    one = report(row("native", overruled="a whole model took 1.2 times stock's step"))
    text = flat(one)
    assert f"Back to native in the forward of {PROBLEM}: a whole model took" in text
    assert json.loads(one.to_json())["rows"][0]["overruled"].startswith("a whole")


def test_the_whole_models_step_is_told():
    text = flat(report(row(), model=ModelCheck(0.2, 0.1, 2.0)))
    assert "200 ms stock, 100 ms converted: 2.00×" in text
    text = flat(report(row(), model=ModelCheck(skipped="it is not a graph of layers")))
    assert "was not timed: it is not a graph of layers." in text


def test_the_text_is_plain():
    one = report(row(), measured=1)
    assert "direct" in str(one)
    assert ESCAPE not in str(one)
    assert str(one) == str(dataclasses.replace(one))
