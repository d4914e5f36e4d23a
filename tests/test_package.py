"""The package as it is installed and imported."""

import ast
import importlib.metadata
from pathlib import Path

import keras
import pytest

import keras_diagwise as kd
from tests.processes import printed_by

BACKEND = keras.backend.backend()
MODULES = {"jax": "jax", "tensorflow": "tensorflow", "torch": "torch"}


def run(code, tmp_path, **environment):
    """Runs Python code in a process of its own, in an empty home."""
    return printed_by(["-c", code], tmp_path, Path(__file__).parents[1], **environment)


def test_import_loads_no_other_backend(tmp_path):
    """Importing the package imports no backend but the active one."""
    code = """
import sys, keras
before = set(sys.modules)
import keras_diagwise
print(*{module.partition('.')[0] for module in set(sys.modules) - before})
"""
    added = set(run(code, tmp_path).split())
    assert not added & (set(MODULES.values()) - {MODULES[BACKEND]})
    assert not added & {"typer", "jinja2", "sklearn", "PIL", "tuning"}


def test_import_does_no_work(tmp_path):
    """Importing the package creates no file and does no work."""
    code = """
import pathlib, keras, threading
home = pathlib.Path.home()
before, threads = sorted(home.rglob('*')), threading.active_count()
import keras_diagwise
assert sorted(home.rglob('*')) == before
assert threading.active_count() == threads
from keras_diagwise.planning.planner import shipped_document
assert shipped_document.cache_info().currsize == 0
if keras.backend.backend() == 'jax':
    import jax
    assert not jax._src.xla_bridge._backends, 'a device was opened'
"""
    run(code, tmp_path)


@pytest.mark.parametrize("name", kd.__all__)
def test_every_public_name_says_what_it_is(name):
    assert getattr(kd, name).__doc__.strip()


def test_the_version_is_the_distributions():
    try:
        assert importlib.metadata.version("keras-diagwise") == kd.__version__
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("runs from a checkout that is not installed")


def test_layers_import_no_tuner_nor_models(tmp_path):
    """Layers import nothing that starts processes."""
    code = """
import sys, keras_diagwise.layers, keras_diagwise as kd
x = kd.depthwise_conv([[[[1.0]]]], [[[[1.0]]]], plan="direct")
print(*(each for each in sys.modules if each.startswith("keras_diagwise")))
"""
    loaded = run(code, tmp_path).split()
    assert "keras_diagwise.layers.base" in loaded
    for room in ("keras_diagwise.tuner", "keras_diagwise.models"):
        assert not [each for each in loaded if each.startswith(room)]


def test_lazy_names_are_listed_and_found(tmp_path):
    code = """
import keras_diagwise as kd
assert set(kd.__all__) <= set(dir(kd))
from keras_diagwise import *
assert tune is kd.tune is kd.models.tune and decisions is kd.decisions
assert not hasattr(kd, "nonsense")
"""
    run(code, tmp_path)


ROOMS = [
    *("version", "_terminal", "budget", "durations"),
    *("records", "problem", "precision", "settings"),
    *("backends", "algorithms", "plan", "environment", "decision", "similarity"),
    *("storage", "planning", "tuner", "ops", "layers", "models", "importers"),
]
"""From the lowest up: each imports only what stands before it."""


def imports_of(path):
    """The modules that one of the package imports when it is imported itself."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.ImportFrom):
            package, _, module = statement.module.partition(".")
            if package == "keras_diagwise":
                names = [each.name for each in statement.names]
                yield from [module] if module else names


def test_imports_go_down_only():
    root = Path(kd.__file__).parent
    for path in root.rglob("*.py"):
        room = path.relative_to(root).with_suffix("").parts[0]
        if room != "__init__":
            below = ROOMS[: ROOMS.index(room) + 1]
            imported = {each.partition(".")[0] for each in imports_of(path)}
            assert imported <= {*below, *kd.__all__}, path


def test_the_package_imports_no_command_line():
    """The package imports nothing of the command line, not even in a function."""
    for path in Path(kd.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [each.name for each in node.names]
                names.append(getattr(node, "module", None) or "")
                assert not any(n.startswith("keras_diagwise_cli") for n in names), path


def test_the_command_line_imports_no_keras(tmp_path):
    """Importing the command line imports neither Keras nor the package."""
    code = """
import sys, keras_diagwise_cli
print(*(name for name in ("keras", "keras_diagwise", "numpy") if name in sys.modules))
"""
    assert run(code, tmp_path).split() == []
