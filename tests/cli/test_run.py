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

has_huge_pages = pytest.mark.skipif(
    tunables.refusal() is not None, reason="about systems with huge pages"
)


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


@has_huge_pages
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


@has_huge_pages
def test_a_module_runs_as_with_python(started):
    CliRunner().invoke(app, ["run", "-m", "package", "--flag"])
    ((program, words, variables),) = started
    assert (program, words[1:]) == (sys.executable, ["-m", "package", "--flag"])
    assert variables[tunables.VARIABLE] == tunables.HUGE_PAGES


@pytest.mark.parametrize(
    ("libc", "modes", "why"),
    [
        (("", ""), "always [madvise] never", "this takes Linux and glibc 2.35"),
        (("glibc", "2.34"), "[always] madvise never", "this takes Linux and glibc"),
        (("glibc", "2.36"), "always madvise [never]", "this system gives no huge"),
    ],
)
def test_a_system_without_runs_it_as_it_is(
    started, monkeypatch, tmp_path, libc, modes, why
):
    """A line says why; the script runs all the same."""
    monkeypatch.setattr(tunables.platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(tunables, "MODES", tmp_path / "enabled")
    tunables.MODES.write_text(modes)
    result = CliRunner().invoke(app, ["run", "script.py"])
    assert f"No huge pages: {why}" in result.stderr
    ((_, _, variables),) = started
    assert tunables.VARIABLE not in variables


def test_a_tunable_that_is_set_stays(monkeypatch):
    monkeypatch.setenv(tunables.VARIABLE, "glibc.malloc.hugetlb=2")
    assert tunables.with_huge_pages() == "glibc.malloc.hugetlb=2"


def test_a_python_that_can_not_start_is_one_line(started, monkeypatch):
    def refuse(*_):
        raise OSError(7, "Argument list too long")

    monkeypatch.setattr(command.os, "execve", refuse)
    result = CliRunner().invoke(app, ["run", "script.py"])
    assert result.exit_code == 2
    assert "Python can't be started: [Errno 7] Argument list too long" in result.stderr


def test_without_a_script_it_says_what_is_missing():
    result = CliRunner().invoke(app, ["run"])
    assert result.exit_code == 2
    assert "SCRIPT" in result.output + result.stderr


def test_a_process_tells_whether_it_asked(monkeypatch):
    monkeypatch.setattr(tunables, "refusal", lambda: None)
    monkeypatch.setenv(tunables.VARIABLE, "glibc.malloc.arena_max=2")
    assert not tunables.in_huge_pages()
    monkeypatch.setenv(tunables.VARIABLE, tunables.with_huge_pages())
    assert tunables.in_huge_pages()
    monkeypatch.setattr(tunables, "refusal", lambda: "none here")
    assert not tunables.in_huge_pages()
