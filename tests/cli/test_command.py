"""The console script: what it answers without Keras."""

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import keras_diagwise
from keras_diagwise_cli import app, commands
from keras_diagwise_cli.discovery import import_commands
from keras_diagwise_cli.loading import BACKENDS, choose_backend

ROOT = Path(keras_diagwise.__file__).parents[1]
ESCAPE = "\x1b"
COMMAND = "from keras_diagwise_cli import run; run()"


def run(*arguments, **environment):
    """The console script in a process that tells each import."""
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-c", COMMAND, *arguments],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **environment},
        timeout=600,
        check=False,
    )


HEAVY = {"jinja2", "keras", "keras_diagwise", "numpy"}


def imported(done):
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--version"], f"keras-diagwise {keras_diagwise.__version__}"),
        (["--help"], "keras-diagwise doctor"),
        ([], "keras-diagwise doctor"),
        (["tune", "--help"], "--batch-size"),
        (["doctor", "--help"], "--json"),
        (["benchmark", "--help"], "keras-diagwise benchmark model.keras"),
        (["report", "--help"], "keras-diagwise report model.keras -o report.html"),
        (["import", "--help"], "keras-diagwise import net.cfg net.weights"),
        (["export", "--help"], "--structure"),
        (["decisions", "show", "--help"], "keras-diagwise decisions show 8x28x28"),
    ],
)
def test_help_and_version_import_no_keras(arguments, words):
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert "keras_diagwise_cli.commands" in imported(done)
    assert not imported(done) & {*HEAVY, *BACKENDS}


def test_a_wrong_option_imports_no_keras():
    done = run("tune", "--nonsense")
    assert done.returncode == 2
    assert "keras" not in imported(done)


def test_completion_names_the_commands():
    done = run(
        _KERAS_DIAGWISE_COMPLETE="complete_bash",
        COMP_WORDS="keras-diagwise ",
        COMP_CWORD="1",
    )
    assert {
        *("demo", "tune", "benchmark", "report", "decisions", "doctor"),
        *("import", "export", "run"),
    } <= set(done.stdout.split())
    assert "keras" not in imported(done)


def test_a_command_imports_the_package(tmp_path):
    """A command that needs the package imports and runs it."""
    done = run("decisions", "list", "--json", KERAS_DIAGWISE_STORE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    assert "keras_diagwise.ops" in imported(done)


def test_the_path_is_told_without_keras(tmp_path):
    done = run("decisions", "path", KERAS_DIAGWISE_STORE=str(tmp_path))
    assert done.stdout == f"{tmp_path}\n"
    assert "keras" not in imported(done)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tune", "x.keras", "--batch-size", "2"], "'x.keras' does not exist"),
        (["tune", "VGG16", "--batch-size", "2", "--budget", "soon"], "--budget"),
        (["benchmark", "x.keras"], "'x.keras' does not exist"),
        (["decisions", "import", "x.json"], "'x.json' does not exist"),
        (["import", "x.cfg", "x.weights", "-o", "x.keras"], "'x.cfg' does not exist"),
        (["export", "x.keras", "--to", "x.weights"], "'x.keras' does not exist"),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_errors_are_told_before_keras_loads(words, says):
    """Wrong arguments are reported before Keras is loaded."""
    done = run(*words)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert "keras" not in imported(done)


CHOSEN = """
import sys
from keras_diagwise_cli import run
sys.argv[1:] = ["decisions", "list"]
try:
    run()
finally:
    print(sys.modules["keras"].backend.backend())
"""


def test_an_installed_backend_is_chosen(tmp_path):
    """An installed backend serves where none was chosen.

    Keras alone would take TensorFlow, and fail where it is not installed.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_HOME": str(tmp_path)}
    environment.pop("KERAS_BACKEND", None)
    done = subprocess.run(
        [sys.executable, "-c", CHOSEN],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (backend,) = done.stdout.splitlines()[-1:]
    installed = [n for n in ("jax", "torch", "tensorflow") if is_installed(n)]
    assert backend == ("tensorflow" if "tensorflow" in installed else installed[0])
    assert ("KERAS_BACKEND is not set" in done.stderr) == (backend != "tensorflow")


@pytest.mark.parametrize(
    ("file", "named", "installed", "then"),
    [
        (None, None, {"jax"}, "jax"),
        (None, "", {"torch"}, "torch"),
        (None, None, {"torch", "tensorflow"}, None),
        (None, None, set(), None),
        (None, "numpy", {"jax"}, "numpy"),
        ('{"backend": "tensorflow"}', None, {"torch"}, "torch"),
        ('{"backend": "torch"}', None, {"jax", "torch"}, None),
        ('{"backend": "openvino"}', None, {"jax"}, None),
        ("{", None, {"jax"}, "jax"),
        ("[]", None, {"jax"}, "jax"),
    ],
)
def test_which_backend_is_chosen(monkeypatch, tmp_path, file, named, installed, then):
    if file is not None:
        (tmp_path / "keras.json").write_text(file)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", named or "")
    if named is None:
        monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: n in installed or None)
    choose_backend()
    assert os.environ.get("KERAS_BACKEND") == then


def is_installed(name):
    return importlib.util.find_spec(name) is not None


def commands_of(group, path=()):
    """The words of each command that is no group, below a group."""
    for name, each in group.commands.items():
        if hasattr(each, "commands"):
            yield (*path, name), each
            yield from commands_of(each, (*path, name))
        else:
            yield (*path, name), each


COMMANDS = dict(commands_of(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_has_examples_in_80_columns(words):
    result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert "Examples" in result.stdout
    assert f"keras-diagwise {' '.join(words)}" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert ESCAPE not in result.stdout


@pytest.mark.parametrize(
    "words",
    [
        words
        for words, each in COMMANDS.items()
        if not hasattr(each, "commands") and words != ("run",)
    ],
)
def test_every_command_has_json_and_debug(words):
    """Every command but `run`, which gives all options to the script."""
    options = [option for each in COMMANDS[words].params for option in each.opts]
    assert {"--json", "--debug"} <= set(options)


def test_an_unexpected_error_is_one_line(monkeypatch):
    """An unexpected error is one line, unless `--debug` is given."""

    def fail(*arguments):
        raise RuntimeError("a mistake\nof two lines")

    monkeypatch.setattr("keras_diagwise_cli.commands.decisions.list_.location_of", fail)
    result = CliRunner().invoke(app, ["decisions", "list"])
    assert result.exit_code == 1
    (line,) = [e for e in result.stderr.splitlines() if not e.endswith("…")]
    assert "RuntimeError: a mistake of two lines" in line
    assert "--debug" in line
    result = CliRunner().invoke(app, ["decisions", "list", "--debug"])
    assert "a mistake" in str(result.exception)


@pytest.mark.parametrize("error", [TypeError, AttributeError, KeyError])
def test_a_bug_is_no_error_of_the_user(monkeypatch, tmp_path, error):
    """A bug in what a command calls is unexpected, not the user's to fix."""

    def fail(*arguments):
        raise error("a mistake")

    monkeypatch.setattr("keras_diagwise.models.decisions.write_document", fail)
    result = CliRunner().invoke(app, ["decisions", "export", str(tmp_path / "x.json")])
    assert result.exit_code == 1
    assert f"unexpected {error.__name__}: " in result.stderr


def test_the_commands_are_in_order():
    """The help has the commands in the order stated, and every file's command."""
    names = list(typer.main.get_command(app).commands)
    assert names == [*(name.strip("_") for name in commands.ORDER), "decisions"]
    files = {path.stem.strip("_") for path in Path(commands.__file__).parent.iterdir()}
    assert set(names) == files - {"init", "pycache"}


def test_a_file_is_a_command(tmp_path, monkeypatch):
    """A file in the folder of commands suffices to add one."""
    folder = tmp_path / "a_package_of_commands"
    folder.mkdir()
    (folder / "__init__.py").write_text("declared = []\n")
    declaration = "import a_package_of_commands as p; p.declared.append(__name__[-3:])"
    for name in ("one", "two", "six"):
        (folder / f"{name}.py").write_text(declaration)
    monkeypatch.syspath_prepend(tmp_path)
    package = importlib.import_module("a_package_of_commands")
    import_commands("a_package_of_commands", ("two",))
    assert package.declared == ["two", "one", "six"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no such pipes")
def test_a_closed_pipe_is_no_error():
    """A reader that closes the pipe early causes no error."""
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -c '{COMMAND}' --help | true"],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=600,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("words", [["decisions", "list"], ["doctor"]])
def test_an_unknown_backend_is_one_line(words):
    """An unknown backend is one line that names the known ones."""
    done = run(*words, KERAS_BACKEND="nonsense")
    assert done.returncode == (1 if words == ["doctor"] else 2)
    text = done.stderr + done.stdout
    assert "unexpected" not in text
    assert "jax, tensorflow, torch" in text
    assert "'nonsense'" in " ".join(text.split())
