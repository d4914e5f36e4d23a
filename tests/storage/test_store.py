"""The store: what is put is got, and nothing that lies there can do harm."""

import dataclasses
import errno
import json
import logging
import os
import random
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

from keras_diagwise.problem import PASSES
from keras_diagwise.storage import folders, warnings
from keras_diagwise.storage.document import Document
from keras_diagwise.storage.files import (
    DECISION_FORMAT,
    OUR_FIRST_BYTES,
    checksum,
    decision_path,
    decision_to_bytes,
    to_bytes,
)
from keras_diagwise.storage.folders import LocalFolder
from keras_diagwise.storage.plain_files import MAX_BYTES
from keras_diagwise.storage.store import Store
from tests.algorithms.suite import dense, dense_layer, depthwise
from tests.samples import (
    ELSEWHERE,
    HERE,
    PROBLEM,
    UPDATED,
    decision,
    document,
    documents,
    with_batch,
)
from tests.strategies import problems
from tests.threads import in_threads

ROOT = Path(__file__).parents[2]


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def file_of(location, environment=HERE, problem=PROBLEM):
    return Path(location) / decision_path(environment.digest, problem)


def files_below(location):
    return sorted(p for p in Path(location).rglob("*") if not p.is_dir())


# What is put is got.


def test_any_store_of_the_location_gets_it(tmp_path, caplog):
    """A decision that is put is found by any store of the location."""
    measured = decision()
    assert Store(tmp_path).put(HERE, measured)
    store = Store(str(tmp_path))
    assert store.get(HERE, PROBLEM) == measured
    assert store.environments() == [HERE]
    assert store.document() == document(HERE, measured)
    assert store.get(ELSEWHERE, PROBLEM) is None
    assert store.get(HERE, with_batch(9)) is None
    assert not warnings_of(caplog)


def test_a_file_is_readable_and_has_its_key(tmp_path):
    Store(tmp_path).put(HERE, decision())
    values = json.loads(file_of(tmp_path).read_text())
    assert values["format"] == "keras-diagwise decision"
    assert values["environment"] == HERE.digest
    assert values["problem"] == PROBLEM.to_dict()
    assert set(values["passes"]) == set(PASSES)
    environment = json.loads((tmp_path / HERE.digest / "environment.json").read_text())
    assert environment["device_name"] == "here"


def test_a_second_put_merges(tmp_path):
    """A second `put` merges, and returns whether anything changed."""
    store = Store(tmp_path)
    first = decision(passes=PASSES[:1])
    second = decision(passes=PASSES[1:])
    assert store.put(HERE, first)
    assert not store.put(HERE, first)
    assert store.put(HERE, second)
    assert store.get(HERE, PROBLEM) == first | second
    assert len(files_below(tmp_path)) == 2


@hypothesis.given(documents(), documents())
def test_a_store_merges_like_documents(tmp_path_factory, one, other):
    store = Store(tmp_path_factory.mktemp("store"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda file: None)
        assert store.merge(one) == len(one)
        store.merge(other)
        assert store.merge(one | other) == 0
    found, expected = store.document(), one | other
    assert list_of(found) == list_of(expected)
    for environment, each in expected:
        for problem in (each.problem, with_batch(77, each.problem)):
            assert store.nearest(environment, problem) == expected.nearest(
                environment, problem
            )


@hypothesis.given(problem=problems())
@hypothesis.example(problem=dense_layer((6, 5), 4, 3))
def test_whatever_problem_is_put_is_listed(tmp_path_factory, problem):
    """The names of folders and files are those that are looked for."""
    store = Store(tmp_path_factory.mktemp("store"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda file: None)
        store.put(HERE, decision(problem))
    ((_, found),) = store.document()
    assert found.problem == problem
    assert store.nearest(HERE, with_batch(77, problem)) == found


def test_a_dense_problem_serves_its_kind(tmp_path):
    """A dense problem is listed, and serves others of its kind."""
    store = Store(tmp_path)
    known = decision(dense((28, 28), 32, 64, (1, 1)))
    store.put(HERE, known)
    assert [each for _, each in store.document()] == [known]
    for channels, filters, padding in ((32, 64, "valid"), (16, 24, "same")):
        other = dense((14, 14), channels, filters, (1, 1), padding=padding)
        assert store.nearest(HERE, other) == known
    assert store.nearest(HERE, dense((28, 28), 32, 64, (3, 3))) is None


def list_of(document):
    return sorted(document, key=lambda pair: (pair[0].digest, pair[1].problem.digest))


def test_the_nearest_is_as_in_a_document(tmp_path):
    """The nearest is found as in a document, for ties and an unknown batch too."""
    problems = [with_batch(n) for n in (1, 4, 64)]
    problems += [dataclasses.replace(PROBLEM, groups=n) for n in (32, 128)]
    problems += [dataclasses.replace(PROBLEM, kernel_size=(5, 5))]
    measured = document(HERE, *map(decision, problems))
    store = Store(tmp_path)
    store.merge(measured)
    for asked in (PROBLEM, with_batch(None), with_batch(16), with_batch(1)):
        found = store.nearest(HERE, asked)
        assert found is not None
        assert found == measured.nearest(HERE, asked)
    assert store.nearest(HERE, with_batch(None)).problem.batch == 64
    assert store.nearest(HERE, depthwise((28, 28), 64, (7, 7))) is None
    assert store.nearest(ELSEWHERE, PROBLEM) is None


def test_next_serves_if_nearest_is_damaged(tmp_path, caplog):
    """Where the nearest is damaged, the next one serves."""
    store = Store(tmp_path)
    store.merge(document(HERE, decision(with_batch(4)), decision(with_batch(64))))
    file_of(tmp_path, problem=with_batch(4)).write_text("{}")
    assert store.nearest(HERE, PROBLEM).problem == with_batch(64)
    assert len(warnings_of(caplog)) == 1


def test_creating_a_store_touches_nothing(tmp_path):
    store = Store(tmp_path / "deep" / "down")
    assert store.location == str(tmp_path / "deep" / "down")
    assert not list(tmp_path.iterdir())
    assert store.get(HERE, PROBLEM) is store.nearest(HERE, PROBLEM) is None
    assert store.environments() == []
    assert store.document() == Document()
    assert store.clear() == 0
    assert not list(tmp_path.iterdir())
    assert store.put(HERE, decision())


def test_the_nearest_reads_one_file(tmp_path, monkeypatch):
    """The nearest is found by file names, and one file is read."""
    Store(tmp_path).merge(document(HERE, *(decision(with_batch(n)) for n in (2, 32))))
    read = reads_of(monkeypatch)
    assert Store(tmp_path).nearest(HERE, PROBLEM).problem == with_batch(2)
    assert [Path(path) for path in read] == [file_of(tmp_path, problem=with_batch(2))]


def test_environments_are_read_once(tmp_path, monkeypatch):
    """Environments are read once, and no decision with them."""
    for environment in (HERE, UPDATED):
        Store(tmp_path).merge(
            document(environment, decision(), decision(with_batch(4)))
        )
    read = reads_of(monkeypatch)
    store = Store(tmp_path)
    assert not read
    for _ in range(3):
        assert set(store.environments()) == {HERE, UPDATED}
    assert [Path(path).name for path in read] == ["environment.json"] * 2
    Store(tmp_path).put(ELSEWHERE, decision())
    assert set(store.environments()) == {HERE, UPDATED, ELSEWHERE}


def reads_of(monkeypatch):
    """The paths of the files that are read from now on."""
    paths, read_plain = [], folders.read_plain

    def reading(path):
        content = read_plain(path)
        paths.append(path)
        return content

    monkeypatch.setattr(folders, "read_plain", reading)
    return paths


# Where it is.


def test_the_variable_sets_the_location(tmp_path, monkeypatch):
    """The variable sets the location, which otherwise is in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KERAS_DIAGWISE_STORE", raising=False)
    if sys.platform == "linux":
        expected = tmp_path / "cache" / "keras-diagwise" / "v1"
        assert Store().location == str(expected)
    monkeypatch.setenv("KERAS_DIAGWISE_STORE", str(tmp_path / "own"))
    assert Store().location == str(tmp_path / "own")
    assert Store(tmp_path / "given").location == str(tmp_path / "given")


def test_a_relative_location_stays_fixed(tmp_path, monkeypatch):
    """A relative location stays where it was when the directory changes."""
    monkeypatch.chdir(tmp_path)
    store = Store("here")
    monkeypatch.chdir("/")
    assert store.location == str(tmp_path / "here")


@pytest.mark.parametrize("location", ["", "a\0b", "\ud800", 3, b"bytes"])
def test_what_is_no_location_is_named(location):
    with pytest.raises(ValueError, match="Received: location="):
        Store(location)


def test_a_url_of_a_file_is_its_folder(tmp_path):
    store = Store(f"file://{tmp_path}/here")
    assert store.put(HERE, decision())
    assert Store(tmp_path / "here").get(HERE, PROBLEM) == decision()


def test_decisions_last_without_a_home(monkeypatch, caplog, tmp_path):
    """Without a home directory, decisions last for the process."""
    pwd = pytest.importorskip("pwd")

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "XDG_CACHE_HOME", "KERAS_DIAGWISE_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    check_lasts_for_the_process(Store(), caplog, "no home directory")
    assert not list(tmp_path.iterdir())


def failing(number):
    def fail(*arguments, **keywords):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("function", "number"),
    [
        ("makedirs", errno.EACCES),
        ("makedirs", errno.EROFS),
        ("makedirs", errno.ENOENT),
        ("open", errno.EROFS),
        ("fsync", errno.ENOSPC),
        ("fsync", errno.EIO),
        ("replace", errno.EACCES),
    ],
)
def test_unwritable_decisions_last_a_process(
    tmp_path, monkeypatch, caplog, function, number
):
    """Where nothing can be written, decisions last for the process."""
    location = tmp_path / "store"
    monkeypatch.setattr(folders.os, function, failing(number))
    check_lasts_for_the_process(Store(location), caplog, os.strerror(number))
    monkeypatch.undo()
    assert not files_below(tmp_path), "a temporary file was left"
    store = Store(location)
    assert store.put(HERE, decision())
    assert Store(location).get(HERE, PROBLEM) == decision()


def test_a_path_below_a_file_is_unwritable(tmp_path, caplog):
    (tmp_path / "file").write_text("mine")
    check_lasts_for_the_process(Store(tmp_path / "file" / "below"), caplog, "Not a dir")
    assert (tmp_path / "file").read_text() == "mine"


def check_lasts_for_the_process(store, caplog, named):
    measured = [decision(with_batch(n)) for n in (2, 4, 64)]
    for each in measured:
        assert store.put(HERE, each)
        assert store.get(HERE, each.problem) == each
    assert not store.put(HERE, measured[0])
    assert store.nearest(HERE, PROBLEM) == measured[1]
    assert store.environments() == [HERE]
    assert store.document() == document(HERE, *measured)
    (message,) = warnings_of(caplog)
    assert named in message
    assert "for this process" in message
    assert store.clear() == 3
    assert store.document() == Document()


@pytest.fixture
def read_only(tmp_path):
    """A function that makes a folder one that this process may not write, for the
    length of a test."""
    if not hasattr(os, "geteuid"):
        pytest.skip("needs POSIX permissions")
    user, modes = os.geteuid(), {}

    def change(folder, mode):
        modes.setdefault(folder, folder.stat().st_mode)
        folder.chmod(mode)

    def make(location):
        for folder in [location, *Path(location).rglob("*")]:
            if folder.is_dir():
                change(folder, 0o555)
        if not user:  # the superuser may write anywhere
            for folder in (tmp_path, *tmp_path.parents):
                if folder.stat().st_mode & 0o011 != 0o011:
                    change(folder, folder.stat().st_mode | 0o011)
            os.seteuid(65534)

    yield make
    os.seteuid(user)
    for folder, mode in modes.items():
        folder.chmod(mode)


def test_a_read_only_folder_serves(tmp_path, read_only, caplog):
    """Decisions in a read-only folder serve, and new ones last for the process."""
    location = tmp_path / "store"
    Store(location).put(HERE, decision())
    before = {path: path.read_bytes() for path in files_below(location)}
    read_only(location)
    store = Store(location)
    assert store.get(HERE, PROBLEM) == decision()
    assert not warnings_of(caplog)
    more = decision(with_batch(4))
    better = decision(native=1.0, direct=0.3, **{"direct:rows": 0.2})
    assert store.put(HERE, more)
    assert store.put(HERE, better)
    assert store.get(HERE, PROBLEM) == better
    assert store.document() == document(HERE, better, more)
    assert Store(location).document() == document(HERE, decision())
    (message,) = warnings_of(caplog)
    assert "for this process" in message
    assert {path: path.read_bytes() for path in files_below(location)} == before


@pytest.mark.parametrize("where", ["root", "environment"])
def test_what_cant_be_kept_is_known_before(where, tmp_path, monkeypatch):
    """A full disk still takes empty files, and another user's folder in a shared store
    may be closed to us: a trial finds both."""
    Store(tmp_path).put(HERE, decision())
    write = LocalFolder.write

    def fail(self, path, content, version):
        if content and (where == "root" or path.startswith(HERE.digest)):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, path, content, version)

    monkeypatch.setattr(LocalFolder, "write", fail)
    store = Store(tmp_path)
    for asked in (store.why_not_kept, store.why_not_writable):
        assert asked(HERE) == "No space left on device"
        assert (asked(ELSEWHERE) is None) == (where == "environment")
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_trial_left_behind_is_swept(tmp_path, monkeypatch):
    """A process that is killed during its trial leaves a file, which is swept."""
    store = Store(tmp_path)
    store.put(HERE, decision())
    monkeypatch.setattr(LocalFolder, "remove", lambda self, path: None)
    assert store.why_not_kept(HERE) is None
    monkeypatch.undo()
    assert len(list(tmp_path.rglob("*.tmp"))) == 2
    assert store.sweep(HERE, seconds=-1) == 2


def test_an_unreadable_folder_is_empty(tmp_path, monkeypatch, caplog):
    """A folder that can't be read is empty, with one warning."""
    Store(tmp_path).put(HERE, decision())
    monkeypatch.setattr(folders.os, "listdir", failing(errno.EACCES))
    store = Store(tmp_path)
    for _ in range(3):
        assert store.environments() == []
    assert len(warnings_of(caplog)) == 1


# Damage.


def test_changed_times_are_noticed(tmp_path, caplog):
    """Changed times are noticed, although the JSON is valid."""
    Store(tmp_path).put(HERE, decision(native=1.0, direct=0.5))
    path = file_of(tmp_path)
    for changed in (0.4, 1.5):
        values = json.loads(path.read_text())
        values["passes"]["forward"]["outcomes"]["direct"]["seconds"] = changed
        path.write_text(json.dumps(values))
        caplog.clear()
        assert Store(tmp_path).get(HERE, PROBLEM) is None
        (message,) = warnings_of(caplog)
        assert "checksum" in message


def truncate(path, content, generator):
    path.write_bytes(content[: generator.randrange(len(content))])


def flip(path, content, generator):
    damaged = bytearray(content)
    for _ in range(generator.choice([1, 1, 2, 8])):
        damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
    path.write_bytes(damaged)


def change_a_digit(path, content, generator):
    digits = [i for i, byte in enumerate(content) if byte in b"0123456789"]
    damaged = bytearray(content)
    at = generator.choice(digits)
    damaged[at] = generator.choice([d for d in b"0123456789" if d != damaged[at]])
    path.write_bytes(damaged)


def change_the_schema(path, content, generator):
    values = json.loads(content)
    name = generator.choice(list(values))
    change = generator.choice(["drop", "add", "null", "list"])
    if change == "drop":
        del values[name]
    elif change == "add":
        values["more"] = 1
    else:
        values[name] = None if change == "null" else [values[name]]
    path.write_text(json.dumps(values))


def put_another_problems(path, content, generator):
    other = with_batch(generator.choice([1, 2, 16]))
    path.write_bytes(decision_to_bytes(HERE.digest, decision(other)))


def put_another_environments(path, content, generator):
    path.write_bytes(decision_to_bytes(ELSEWHERE.digest, decision()))


def put_what_is_no_json(path, content, generator):
    texts = ["hello", "", "[1, 2]", "null", "3", '{"a": ', "[" * 100_000]
    path.write_text(generator.choice(texts))


def put_a_later_version(path, content, generator):
    path.write_bytes(content.replace(b'"version": 1', b'"version": 2'))


def make_a_directory(path, content, generator):
    path.mkdir()


def make_a_dangling_link(path, content, generator):
    path.symlink_to(path.parent / "nowhere")


def make_a_link_to_itself(path, content, generator):
    path.symlink_to(path.name)


def make_a_pipe(path, content, generator):
    os.mkfifo(path)


def make_a_device(path, content, generator):
    path.symlink_to("/dev/zero")


def put_gigabytes(path, content, generator):
    with path.open("wb") as file:
        file.truncate(generator.choice([MAX_BYTES + 1, 2**30, 2**36]))


DAMAGES = [
    *[truncate, flip, change_a_digit] * 3,
    change_the_schema,
    put_another_problems,
    put_another_environments,
    put_what_is_no_json,
    put_a_later_version,
    make_a_directory,
    make_a_dangling_link,
    make_a_link_to_itself,
    make_a_pipe,
    make_a_device,
    put_gigabytes,
]


def remove(path):
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def test_random_damages_are_misses(tmp_path, caplog):
    """A thousand random damages are misses, except the few that change nothing."""
    generator = random.Random(20)
    measured = decision()
    Store(tmp_path).put(HERE, measured)
    path = file_of(tmp_path)
    content = path.read_bytes()
    unharmed = 0
    for _ in range(1000):
        damage = generator.choice(DAMAGES)
        remove(path)
        damage(path, content, generator)
        before = os.lstat(path)
        caplog.clear()
        store = Store(tmp_path)
        asked = [
            store.get(HERE, PROBLEM),
            store.nearest(HERE, with_batch(4)),
            *store.document().entries.get(HERE, {}).values(),
        ]
        found = [each for each in asked if each is not None]
        if found:  # a blank became another, or a truncation took the last newline
            assert damage in (flip, truncate)
            assert found == [measured] * 3
            unharmed += 1
        else:
            assert len(warnings_of(caplog)) == 1, (damage, warnings_of(caplog))
            assert str(path) in warnings_of(caplog)[0]
            assert len(warnings_of(caplog)[0]) < 1000
        assert os.path.samestat(os.lstat(path), before), "damage was removed"
    assert unharmed < 100


def test_a_damaged_environment_is_a_miss(tmp_path, caplog):
    generator = random.Random(30)
    Store(tmp_path).put(HERE, decision())
    path = tmp_path / HERE.digest / "environment.json"
    content = path.read_bytes()
    for _ in range(200):
        damage = generator.choice(DAMAGES)
        remove(path)
        damage(path, content, generator)
        caplog.clear()
        store = Store(tmp_path)
        found = store.environments()
        assert found in ([], [HERE]), damage
        assert len(warnings_of(caplog)) == (not found)
        assert store.get(HERE, PROBLEM) == decision()


@pytest.mark.parametrize("damage", sorted(set(DAMAGES), key=lambda each: each.__name__))
def test_a_put_over_damage_replaces_it(tmp_path, damage, caplog):
    """A `put` over damage replaces it, or lasts for the process."""
    store = Store(tmp_path)
    store.put(HERE, decision())
    path = file_of(tmp_path)
    content = path.read_bytes()
    remove(path)
    damage(path, content, random.Random(1))
    store = Store(tmp_path)
    assert store.put(HERE, decision())
    assert store.get(HERE, PROBLEM) == decision()
    if damage is make_a_directory:
        assert path.is_dir()
        assert "for this process" in warnings_of(caplog)[-1]
    elif damage is put_a_later_version:
        assert path.read_bytes() != content
        assert Store(tmp_path).get(HERE, PROBLEM) is None
    else:
        assert path.read_bytes() == content


def with_a_field(content):
    """A decision's file as a version with a further field would write it."""
    values = json.loads(content)
    del values["format"], values["version"], values["checksum"]
    values["passes"]["forward"]["novel"] = 1
    values = {"checksum": checksum(values), **values}
    return to_bytes(DECISION_FORMAT, values)


def of_format_2(content):
    return content.replace(b'"version": 1', b'"version": 2')


@pytest.mark.parametrize("written", [with_a_field, of_format_2])
def test_another_versions_decision_is_never_replaced(tmp_path, written, caplog):
    """A decision that only another version can read stays, byte for byte.

    This version's own then lasts for the process; files that are damaged are replaced.
    """
    Store(tmp_path).put(HERE, decision())
    path = file_of(tmp_path)
    theirs = written(path.read_bytes())
    path.write_bytes(theirs)
    store = Store(tmp_path)
    assert store.get(HERE, PROBLEM) is None
    for passes in (PASSES[:1], PASSES):
        assert store.put(HERE, decision(passes=passes))
    assert store.get(HERE, PROBLEM) == decision()
    assert path.read_bytes() == theirs
    (said,) = warnings_of(caplog)
    assert "later version" in said
    assert str(path) in said


def with_a_negative_time(content):
    """A decision's file whose checksum fits, and whose content does not."""
    values = json.loads(content)
    del values["format"], values["version"], values["checksum"]
    values["passes"]["forward"]["outcomes"]["native"]["seconds"] = -1.0
    values = {"checksum": checksum(values), **values}
    return to_bytes(DECISION_FORMAT, values)


def test_wrong_values_are_damage(tmp_path, caplog):
    """No version writes a negative time: such a file is replaced."""
    Store(tmp_path).put(HERE, decision())
    path = file_of(tmp_path)
    content = path.read_bytes()
    path.write_bytes(with_a_negative_time(content))
    store = Store(tmp_path)
    assert store.get(HERE, PROBLEM) is None
    assert store.put(HERE, decision())
    assert path.read_bytes() == content
    assert "later version" not in caplog.text


def test_another_versions_environment_is_never_replaced(tmp_path):
    store = Store(tmp_path)
    store.put(HERE, decision())
    path = tmp_path / HERE.digest / "environment.json"
    theirs = path.read_bytes().replace(b'"backend"', b'"novel": 1,\n "backend"', 1)
    path.write_bytes(theirs)
    store = Store(tmp_path)
    assert store.environments() == []
    assert store.count() == 1
    store.put(HERE, decision(with_batch(2)))
    assert path.read_bytes() == theirs
    assert store.environments() == [HERE]


def test_another_versions_check_is_never_replaced(tmp_path):
    store = Store(tmp_path)
    store.put(HERE, decision())
    store.keep_check(HERE, "0" * 16, {"skipped": "x"})
    (path,) = tmp_path.glob("*/checks/*.json")
    theirs = of_format_2(path.read_bytes())
    path.write_bytes(theirs)
    store = Store(tmp_path)
    assert store.check(HERE, "0" * 16) is None
    store.keep_check(HERE, "0" * 16, {"skipped": "y"})
    assert store.check(HERE, "0" * 16) == {"skipped": "y"}
    assert path.read_bytes() == theirs


def test_a_file_for_a_folder_is_a_miss(tmp_path, caplog):
    """A file in place of a folder is a miss, and stays."""
    store = Store(tmp_path)
    path = file_of(tmp_path)
    path.parent.parent.mkdir(parents=True)
    path.parent.write_text("mine")
    assert store.get(HERE, PROBLEM) is store.nearest(HERE, PROBLEM) is None
    assert store.put(HERE, decision())
    assert store.get(HERE, PROBLEM) == decision()
    assert path.parent.read_text() == "mine"
    assert len(warnings_of(caplog)) == 2


def test_damaged_files_are_named_once(tmp_path, caplog):
    """Each damaged file is named once, and only a few of many."""
    store = Store(tmp_path)
    problems = [with_batch(n) for n in range(1, 30)]
    for each in problems:
        path = file_of(tmp_path, problem=each)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("damaged")
    for _ in range(3):
        for each in problems:
            assert store.get(HERE, each) is None
    messages = warnings_of(caplog)
    assert len(messages) == warnings.MAX_WARNINGS + 1
    assert len(set(messages)) == len(messages)
    assert "further" in messages[-1]


# Sharing.


def test_clear_removes_only_its_own_files(tmp_path, caplog):
    store = Store(tmp_path)
    problems = [with_batch(n) for n in (1, 2, 4)]
    store.merge(document(HERE, *map(decision, problems)))
    store.merge(document(ELSEWHERE, *map(decision, problems)))
    bucket = file_of(tmp_path).parent
    foreign = [
        tmp_path / "notes.txt",
        tmp_path / HERE.digest / "notes.txt",
        bucket / "notes.txt",
        bucket / f"1.000-2.000-3.000-{'0' * 16}.json",
        bucket / f".{'1' * 16}.tmp",
    ]
    for path in foreign:
        path.write_text("foreign")
    for content in (b"", b"{", OUR_FIRST_BYTES + b"deci"):
        (bucket / f".{len(content):016x}.tmp").write_bytes(content)
    truncated = file_of(tmp_path, problem=problems[0])
    truncated.write_bytes(truncated.read_bytes()[:100])
    assert store.clear() == 6
    assert files_below(tmp_path) == sorted(foreign)
    assert not (tmp_path / ELSEWHERE.digest).exists()
    assert store.document() == Document()
    assert store.put(HERE, decision())
    assert store.get(HERE, PROBLEM) == decision()


def test_environment_returns_after_a_clear(
    tmp_path,
):
    """After another process cleared the store, the environment is written anew."""
    store = Store(tmp_path)
    store.put(HERE, decision())
    assert store.environments() == [HERE]
    Store(tmp_path).clear()
    assert store.environments() == []
    assert store.put(HERE, decision())
    assert Store(tmp_path).document() == document(HERE, decision())


def test_a_clear_during_a_put_loses_nothing(tmp_path, monkeypatch, caplog):
    """A store that is cleared between two steps of a write is made anew."""
    store, makedirs = Store(tmp_path), os.makedirs
    calls = []

    def cleared(path, **keywords):
        makedirs(path, **keywords)
        calls.append(path)
        if len(calls) in (1, 4):
            os.rmdir(path)

    monkeypatch.setattr(folders.os, "makedirs", cleared)
    assert store.put(HERE, decision())
    assert file_of(tmp_path).exists()
    assert not warnings_of(caplog)


def test_a_concurrent_write_is_not_lost(tmp_path, monkeypatch):
    """A decision that another process writes meanwhile is not lost."""
    store, other = Store(tmp_path), Store(tmp_path)
    theirs, ours = decision(passes=PASSES[:1]), decision(passes=PASSES[1:])
    fsync = os.fsync

    def interfering(file):
        fsync(file)
        monkeypatch.setattr(folders.os, "fsync", fsync)
        other.put(HERE, theirs)

    store.put(HERE, decision(with_batch(3)))
    monkeypatch.setattr(folders.os, "fsync", interfering)
    assert store.put(HERE, ours)
    assert Store(tmp_path).get(HERE, PROBLEM) == theirs | ours
    assert all(path.suffix == ".json" for path in files_below(tmp_path))


def test_threads_share_a_store(tmp_path, caplog):
    store = Store(tmp_path)
    problems = [with_batch(n) for n in range(1, 7)]

    def work(number):
        for problem in problems:
            name = PASSES[number % 3]
            store.put(HERE, decision(problem, passes=(name,)))
            assert name in store.get(HERE, problem).passes
            assert store.nearest(HERE, with_batch(None)) is not None
            store.environments()

    assert not in_threads(work)
    assert store.document() == document(HERE, *map(decision, problems))
    assert not warnings_of(caplog)


PROCESSES = """
import os, random, signal, sys, time
from keras_diagwise.storage.store import Store
from keras_diagwise.problem import PASSES
from tests.samples import HERE, decision, with_batch

def child(work):
    pid = os.fork()
    if not pid:
        try:
            work()
        except BaseException:
            import traceback; traceback.print_exc(); os._exit(1)
        os._exit(0)
    return pid

def share(location, number):
    store = Store(location)
    for batch in [*range(1, 21), 100 + number]:
        store.put(HERE, decision(with_batch(batch), passes=[PASSES[number % 3]]))
        assert store.get(HERE, with_batch(batch))

def write(location, pipe, start):
    store = Store(location)
    for batch in range(start, 10_000):
        for name in PASSES:
            store.put(HERE, decision(with_batch(batch), passes=[name]))
        os.write(pipe, b"%d\\n" % batch)

location, what = sys.argv[1:]
if what == "share":
    children = [child(lambda n=n: share(location, n)) for n in range(8)]
    codes = [os.waitpid(pid, 0)[1] for pid in children]
    assert codes == [0] * 8, codes
else:
    generator = random.Random(5)
    for kill in range(20):
        reading, writing = os.pipe()
        pid = child(lambda: write(location, writing, 1 + 100 * kill))
        os.close(writing)
        if kill == 0:  # one at least writes something, however slow the machine
            print(os.read(reading, 64).decode(), end="")
        time.sleep(generator.uniform(0.0, 0.06))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(reading) as file:
            print(file.read(), end="")
"""


def run_processes(location, what):
    done = subprocess.run(
        [sys.executable, "-c", PROCESSES, str(location), what],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "can't be" not in done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_share_a_store(tmp_path, caplog):
    run_processes(tmp_path, "share")
    found = Store(tmp_path).document()
    batches = [*range(1, 21), *range(100, 108)]
    assert set(found.entries[HERE]) == set(map(with_batch, batches))
    for _, each in found:
        assert each.passes
        assert each == decision(each.problem, passes=each.passes)
    assert not warnings_of(caplog)
    assert all(path.suffix == ".json" for path in files_below(tmp_path))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_writer_leaves_no_damage(tmp_path, caplog):
    """A writer killed at any moment leaves a whole store."""
    confirmed = {int(line) for line in run_processes(tmp_path, "kill").split()}
    assert confirmed
    store = Store(tmp_path)
    found = store.document()
    assert {problem.batch for problem in found.entries[HERE]} >= confirmed
    for _, each in found:
        passes = PASSES if each.problem.batch in confirmed else each.passes
        assert each == decision(each.problem, passes=passes)
    assert not warnings_of(caplog)
    assert store.clear() == len(found)
    assert not list(tmp_path.iterdir()), "a temporary file was left"


def left_behind(store, tmp_path):
    """What a killed process may leave, in every folder of an environment."""
    store.put(HERE, decision(PROBLEM))
    digest = HERE.digest
    (bucket,) = [p for p in (tmp_path / digest).iterdir() if p.is_dir()]
    (tmp_path / digest / "claims").mkdir()
    found = [
        tmp_path / f".{'0' * 16}.tmp",
        tmp_path / digest / f".{'1' * 16}.tmp",
        bucket / f".{'2' * 16}.tmp",
        tmp_path / digest / "claims" / f"{'3' * 16}-1.json",
    ]
    for path in found:
        path.write_bytes(OUR_FIRST_BYTES if path.suffix == ".tmp" else b"")
    found[-1].write_bytes(OUR_FIRST_BYTES + b'claim"}')
    return found


def test_leftovers_are_swept_after_an_hour(tmp_path):
    """Files that a killed process left behind are swept after an hour."""
    store = Store(tmp_path)
    found = left_behind(store, tmp_path)
    foreign = tmp_path / HERE.digest / "notes.tmp"
    foreign.write_bytes(b"mine")
    assert store.sweep(HERE) == 0
    assert all(path.exists() for path in found)
    for path in (*found, foreign, *tmp_path.rglob("*.json")):
        before = path.stat().st_mtime - 3700
        os.utime(path, (before, before))
    assert store.sweep(HERE) == len(found)
    assert not any(path.exists() for path in found)
    assert foreign.exists()
    assert store.get(HERE, PROBLEM) == decision(PROBLEM)


def test_a_renewed_lease_is_not_swept(tmp_path):
    store = Store(tmp_path)
    store.put(HERE, decision(PROBLEM))
    with store.leases(HERE).held("4" * 16) as is_ours:
        assert is_ours
        assert store.sweep(HERE) == 0
        with store.leases(HERE).held("4" * 16) as is_free:
            assert not is_free


def test_a_time_of_zero_in_a_file_is_a_miss(tmp_path, caplog):
    """Also where its checksum fits."""
    store = Store(tmp_path)
    store.put(HERE, decision(PROBLEM))
    (path,) = tmp_path.rglob("*-*-*.json")
    values = json.loads(path.read_text())
    del values["format"], values["version"], values["checksum"]
    values["passes"]["forward"]["outcomes"]["direct"]["seconds"] = 0
    content = to_bytes(DECISION_FORMAT, {"checksum": checksum(values), **values})
    path.write_bytes(content)
    assert Store(tmp_path).get(HERE, PROBLEM) is None
    assert len(caplog.records) == 1
