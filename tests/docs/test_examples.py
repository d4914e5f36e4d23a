"""The examples of the documentation, and its notebook, run and do what they say."""

import importlib.util
import os
import re
import shutil
import sys

import keras
import pytest

from tests.docs.blocks import PAGES
from tests.processes import printed_by

BACKEND = keras.backend.backend()
ROOT = PAGES.parent
EXAMPLES = sorted((PAGES / "examples").glob("*.py"))
MAX_LINES = 60
SAYS = {
    "fine_tuning": r"not trained on: ([6-9]\d|100)%",
    "fleet": r"worker 0 measured \d+ passes\nworker 1 measured \d+ passes",
    "mixed_precision": r"of bfloat16, accuracy (9\d|8\d)%",
    "motion": r"test accuracy: (9\d|100)%",
    "training_loop": r"loss: 2\.\d\d at first, 0\.\d\d at the end",
}
"""What each prints, by the beginning of its name."""


def printed(example, folder):
    """What an example prints, run by itself in an empty home."""
    variables = {"KERAS_DIAGWISE_STORE": str(folder / "store"), "PYTHONPATH": str(ROOT)}
    return printed_by([str(example)], folder, folder, **variables)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_does_what_it_says(example, tmp_path):
    written_for = re.sub("training_loop_?", "", example.stem)
    if example.stem.startswith("training_loop"):
        if written_for != BACKEND:
            pytest.skip(f"is written for {written_for}")
    elif importlib.util.find_spec("sktime") is None:
        pytest.skip("runs with the documentation")
    (says,) = (each for name, each in SAYS.items() if example.stem.startswith(name))
    assert re.search(says, printed(example, tmp_path))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_is_short_and_on_the_page(example):
    assert len(example.read_text().splitlines()) <= MAX_LINES
    assert f'"examples/{example.name}"' in (PAGES / "examples.md").read_text()


def test_the_notebook_runs(tmp_path, monkeypatch):
    """The quick-start notebook runs from its first cell to its last."""
    if shutil.which("keras-diagwise", path=os.path.dirname(sys.executable)) is None:
        pytest.skip("runs where the package is installed")
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("KERAS_DIAGWISE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    bin = os.path.dirname(sys.executable)
    monkeypatch.setenv("PATH", f"{bin}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(PAGES / "quickstart.ipynb", as_version=4)
    path = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, timeout=600, resources=path)
    client.execute()
    printed = "".join(
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", ())
    )
    assert "layers of 'sequential' run by plan" in printed
    assert "The whole model's step" in printed
    assert "report.html" in printed
    assert "All is well" in printed
