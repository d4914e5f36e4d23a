"""The modules of backends: each has every name, and takes what the others take."""

import ast
import inspect
from pathlib import Path

import pytest

from keras_diagwise import backends

FOLDER = Path(backends.__file__).parent
MODULES = sorted(FOLDER.glob("*_backend.py"))


def names_used(folder=FOLDER.parent):
    """What the package asks of the active backend."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_active = (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Attribute)
                and node.value.attr == "active"
            )
            if is_active:
                found.add(node.attr)
    return found


def defined(path):
    """The names that a module defines or takes from a module beside it, and how many
    arguments its functions take."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            beside = FOLDER / f"{(node.module or '').rpartition('.')[2]}.py"
            if beside.exists():
                there = defined(beside)
                found.update({each.name: there.get(each.name) for each in node.names})
        if isinstance(node, ast.FunctionDef):
            found[node.name] = [each.arg for each in node.args.args]
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                found.update({n.id: None for n in ast.walk(target) if hasattr(n, "id")})
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_each_has_every_name_that_is_used(path):
    """Of one that trains nothing no convolution is measured or differentiated."""
    trains = path.stem != "inference_backend"
    used = names_used() if trains else names_used(FOLDER.parent / "models")
    assert used - defined(path).keys() == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_signatures_match_across_backends(path):
    """Functions of every backend take as many arguments as the active one's."""
    here, there = vars(backends.active), defined(path)
    for name in names_used():
        if inspect.isfunction(here[name]) and there.get(name) is not None:
            mine = inspect.getfullargspec(here[name]).args
            assert len(there[name]) == len(mine), name


def test_every_name_is_described():
    text = backends.__doc__
    assert {name for name in names_used() if f"`{name}" not in text} == set()
