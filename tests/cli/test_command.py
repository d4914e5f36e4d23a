"""The console script: what it answers without Keras."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import keras_diagwise

ROOT = Path(keras_diagwise.__file__).parents[1]
COMMAND = "import keras_diagwise_command as command; command.run()"


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
        (["decisions", "show", "--help"], "keras-diagwise decisions show 8x28x28"),
    ],
)
def test_help_and_version_import_no_keras(arguments, words):
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert "keras_diagwise.cli" in imported(done)
    assert not imported(done) & {"keras", "numpy", "jax", "tensorflow", "torch"}


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
    assert {"demo", "tune", "decisions", "doctor"} <= set(done.stdout.split())
    assert "keras" not in imported(done)


def test_a_command_that_needs_the_package_runs_it(tmp_path):
    done = run("decisions", "list", "--json", KERAS_DIAGWISE_STORE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    assert "keras_diagwise.convolution" in imported(done)
