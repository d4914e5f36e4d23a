"""`keras-diagwise run`: Python with its memory in huge pages."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from keras_diagwise_cli import app, tunables
from keras_diagwise_cli.commands import run as command

SCRIPT = """
import os, sys
print(sys.argv[1:], os.environ.get("GLIBC_TUNABLES"), "keras" in sys.modules)
sys.exit(7)
"""

is_glibc = pytest.mark.skipif(not tunables.has_tunables(), reason="about glibc")


@pytest.fixture
def started(monkeypatch):
    """The arguments with which Python would be started."""
    calls = []
    monkeypatch.setattr(command.os, "execve", lambda *given: calls.append(given))
    monkeypatch.setattr(
        command.subprocess,
        "run",
        lambda words, **_: subprocess.CompletedProcess(words, 0),
    )
    monkeypatch.delenv(tunables.VARIABLE, raising=False)
    return calls


@is_glibc
@pytest.mark.skipif(os.name != "posix", reason="Python takes the command's place")
def test_python_takes_its_place(tmp_path):
    """The script has its arguments, options too, the variable and its own exit code."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    words = ["run", str(script), "a", "--debug", "--help"]
    begin = (
        f"import sys; sys.argv[1:] = {words}; import keras_diagwise_cli as c; c.run()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", begin],
        capture_output=True,
        text=True,
        env={**os.environ, tunables.VARIABLE: "glibc.malloc.arena_max=2"},
    )
    value = f"glibc.malloc.arena_max=2:{tunables.HUGE_PAGES}"
    assert ended.stdout == f"['a', '--debug', '--help'] {value} False\n"
    assert ended.returncode == 7


@is_glibc
def test_a_module_runs_as_with_python(started):
    CliRunner().invoke(app, ["run", "-m", "package", "--flag"])
    ((program, words, variables),) = started
    assert (program, words[1:]) == (sys.executable, ["-m", "package", "--flag"])
    assert variables[tunables.VARIABLE] == tunables.HUGE_PAGES


def test_another_c_library_runs_it_as_it_is(started, monkeypatch):
    """A line says so; the script runs all the same."""
    monkeypatch.setattr(tunables, "has_tunables", lambda: False)
    result = CliRunner().invoke(app, ["run", "script.py"])
    assert "Nothing is set: this takes Linux and glibc 2.35" in result.stderr
    ((_, _, variables),) = started
    assert tunables.VARIABLE not in variables


def test_without_a_script_it_says_what_is_missing():
    result = CliRunner().invoke(app, ["run"])
    assert result.exit_code == 2
    assert "SCRIPT" in result.output + result.stderr
