"""The importers as part of the package: imported by whom they are asked for by."""

import subprocess
import sys
from pathlib import Path

import pytest

from keras_diagwise.importers import files, formats

ROOT = Path(__file__).parents[2]

CODE = """
import sys
import keras_diagwise, keras_diagwise_cli
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


def test_a_write_that_fails_changes_nothing(tmp_path, monkeypatch):
    """The weights that were there are whole, and nothing lies beside them."""
    path = tmp_path / "net.weights"
    path.write_bytes(b"trained for a week")

    def fail(*arguments):
        raise OSError("the disk is full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="full"):
        files.replace(path, "weights", b"others")
    assert path.read_bytes() == b"trained for a week"
    assert list(tmp_path.iterdir()) == [path]


def test_only_a_plain_file_is_replaced(tmp_path):
    """A device or a folder is not; a link is followed."""
    with pytest.raises(ValueError, match="`weights` must be a plain file"):
        files.replace(tmp_path, "weights", b"others")
    link, target = tmp_path / "link", tmp_path / "net.weights"
    target.write_bytes(b"old")
    link.symlink_to(target)
    files.replace(link, "weights", b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
