"""The importers as part of the package: imported by whom they are asked for by."""

import subprocess
import sys
from pathlib import Path

import pytest

from keras_diagwise.importers import formats

ROOT = Path(__file__).parents[2]

CODE = """
import sys
import keras_diagwise, keras_diagwise.cli
print(*(name for name in sys.modules if name.startswith("keras_diagwise.importers")))
"""


def test_importers_are_imported_when_asked():
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []


def test_weights_belong_to_structures():
    assert set(formats.WEIGHTS.values()) == set(formats.STRUCTURES)


@pytest.mark.parametrize(
    ("structure", "weights"),
    [
        ("a.cfg", "a.weights"),
        ("b-symbol.json", "b-0012.params"),
        ("c.prototxt", "c.caffemodel"),
    ],
)
def test_structure_beside_weights(tmp_path, structure, weights):
    (tmp_path / structure).touch()
    assert formats.structure_beside(tmp_path / weights) == tmp_path / structure
