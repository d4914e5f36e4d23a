"""Any damage to a file of the store: a plan all the same, one warning at most, and
every command that shows decisions works. `HYPOTHESIS_PROFILE=long` draws 2,000."""

import contextlib
import gzip
import io
import json
import logging
import os
import tempfile
from pathlib import Path

import hypothesis
import keras
from hypothesis import strategies as st

import keras_diagwise as kd
from keras_diagwise.decision import Comparison, Decision, Outcome
from keras_diagwise.models.environment import environment_of
from keras_diagwise.models.problems import uses_in
from keras_diagwise.ops import dispatcher
from keras_diagwise.plan import Plan
from keras_diagwise.problem import PASSES
from keras_diagwise.storage.files import (
    DECISION_FORMAT,
    checksum,
    decision_path,
    to_bytes,
)
from keras_diagwise.storage.plain_files import MAX_BYTES
from keras_diagwise.storage.store import Store
from keras_diagwise_cli.decisions.tables import show_all, show_candidates
from keras_diagwise_cli.report.figures import report_figures
from keras_diagwise_cli.report.page import report_page
from tests.samples import MEASURED

NUMBERS = (0, -1, 5e-324, 1e-320, 1e308, float("nan"), float("inf"), 2**63, 10**400)
ODD = ("", "\x1b[2J", "x" * 10_000, None, True, [], {}, ["a"], {"a": 1}, "\ud800")


def cut(content, at):
    return content[: int(at * len(content))]


def flipped(content, at):
    place = min(int(at * len(content)), len(content) - 1)
    return content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]


def without_byte(content, at):
    return cut(content, at) + content[len(cut(content, at)) + 1 :]


def with_byte(content, at):
    return cut(content, at) + b'"' + content[len(cut(content, at)) :]


BYTES = {
    "cut": cut,
    "flipped": flipped,
    "doubled": lambda content, at: content * 2,
    "empty": lambda content, at: b"",
    "zeros": lambda content, at: b"\0" * len(content),
    "without a byte": without_byte,
    "with a byte": with_byte,
    "end first": lambda content, at: content[::-1],
    "utf-16": lambda content, at: content.decode().encode("utf-16"),
    "with a mark": lambda content, at: b"\xef\xbb\xbf" + content,
    "latin": lambda content, at: content.replace(b"native", b"nati\xe9e"),
    "of Windows": lambda content, at: content.replace(b"\n", b"\r\n"),
    "packed": lambda content, at: gzip.compress(content),
    "null": lambda content, at: b"null",
    "a list": lambda content, at: b"[]",
    "a number": lambda content, at: b"1",
    "a text": lambda content, at: b'"text"',
    "an object": lambda content, at: b"{}",
    "deep": lambda content, at: b"[" * 100_000,
    "large": lambda content, at: content + b" " * MAX_BYTES,
    "merged badly": lambda content, at: b"<<<<<<< HEAD\n" + content,
    "of another version": lambda content, at: content.replace(b": 1,", b": 2,", 1),
    "of another format": lambda content, at: content.replace(b"decision", b"verdict"),
    "names twice": lambda content, at: content.replace(b"{", b'{"problem": 1,', 1),
}


def to_folder(path):
    path.unlink()
    path.mkdir()


def to_link(path):
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def to_pipe(path):
    path.unlink()
    os.mkfifo(path)


def moved(path):
    path.rename(path.with_name(path.name.replace("-", "-0", 1)))


def gone(path):
    path.unlink()


FILES = {each.__name__: each for each in (to_folder, to_link, to_pipe, moved, gone)}


def places(values, path=()):
    """The paths to all that is in JSON values."""
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def replaced(content, place, value):
    """A decision's file with a value replaced, and a checksum that fits."""
    values = json.loads(content)
    for name in ("format", "version", "checksum"):
        del values[name]
    found = list(places(values))
    *path, last = found[place % len(found)]
    holder = values
    for key in path:
        holder = holder[key]
    if value == "removed":
        del holder[last]
    else:
        holder[last] = value
    with contextlib.suppress(ValueError, UnicodeError):
        return to_bytes(DECISION_FORMAT, {"checksum": checksum(values), **values})
    return content


damages = st.one_of(
    st.tuples(st.just("bytes"), st.sampled_from(sorted(BYTES)), st.floats(0, 1)),
    st.tuples(st.just("file"), st.sampled_from(sorted(FILES)), st.none()),
    st.tuples(
        st.just("value"),
        st.integers(0, 200),
        st.sampled_from((*NUMBERS, *ODD, "removed")),
    ),
)


def damage(path, kind, how, value):
    if kind == "file":
        FILES[how](path)
    else:
        content = path.read_bytes()
        new = BYTES[how](content, value) if kind == "bytes" else None
        path.write_bytes(replaced(content, how, value) if new is None else new)


class Warned(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


@contextlib.contextmanager
def warned():
    logger, handler = logging.getLogger("keras_diagwise"), Warned()
    logger.addHandler(handler)
    try:
        yield handler.said
    finally:
        logger.removeHandler(handler)


def model_and_problem():
    model = keras.Sequential(
        [keras.Input((9, 9, 4)), keras.layers.DepthwiseConv2D(3, name="only")]
    )
    kd.convert(model, verbose=0)
    return model, uses_in(model, 2)[0].problem


def measured(problem):
    outcomes = {
        "native": Outcome(1.0, 1e-7),
        "direct": Outcome(0.1, 1e-7, 9.0),
        "diagonal:2": Outcome(failure="exception", reason="it can't"),
    }
    comparison = Comparison(outcomes, MEASURED, 0.05)
    return Decision(problem, dict.fromkeys(PASSES, comparison))


def shown(model):
    """What every command that shows decisions prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        print(kd.summary(model, batch_size=2))
        document = dispatcher.store.document()
        show_all(document, "here")
        show_candidates(document)
        figures = report_figures(model, 2)
        print(report_page({"given": "model", "tune": "tune", **figures}))
    return printed.getvalue()


@hypothesis.given(damages)
def test_any_damage_warns_at_most_once(drawn):
    """Any damage still gives a plan, and one warning at most."""
    before = dispatcher.planner.store
    with tempfile.TemporaryDirectory() as folder, warned() as said:
        model, problem = model_and_problem()
        environment = environment_of(model)
        Store(folder).put(environment, measured(problem))
        path = Path(folder) / decision_path(environment.digest, problem)
        damage(path, *drawn)
        try:
            dispatcher.store = Store(folder)
            answer = dispatcher.answer(problem, "auto", environment)
            assert isinstance(answer.plan, Plan)
            text = shown(model)
        finally:
            dispatcher.planner.store = before
            dispatcher.forget()
    assert "\x1b" not in text
    about = [line for line in said if folder in line]
    assert len(about) <= 1, about
    assert all("\x1b" not in line and len(line) < 2000 for line in said)
