"""A store behind a URL: decisions are objects in it, what is secret in it is not shown,
and while it can't be reached the store of this machine serves."""

import logging
import sys
import threading

import pytest

from keras_diagwise.problem import PASSES
from keras_diagwise.storage import locations, remote_folder
from keras_diagwise.storage.document import Document
from keras_diagwise.storage.files import decision_path
from keras_diagwise.storage.folders import LocalFolder
from keras_diagwise.storage.locations import shown
from keras_diagwise.storage.plain_files import MAX_BYTES
from keras_diagwise.storage.store import Store
from tests.samples import (
    HERE,
    PROBLEM,
    UPDATED,
    decision,
    document,
    with_batch,
)


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("/plain/p@th?x", "/plain/p@th?x"),
        ("s3://bucket/folder", "s3://bucket/folder"),
        ("s3://key:secret@bucket/folder", "s3://bucket/folder"),
        ("https://host/path?token=secret", "https://host/path"),
        ("https://user:secret@host/path#secret", "https://host/path"),
        ("ftp://user:sec/ret@host/path", "ftp://host/path"),
        ("ftp://user:sec?ret@host/path", "ftp://…"),
        ("https://host/path?token=a@secret", "https://…"),
        ("simplecache::s3://key:secret@bucket/f", "simplecache::s3://bucket/f"),
    ],
)
def test_secrets_in_a_location_are_hidden(location, seen):
    assert shown(location) == seen


def test_without_fsspec_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ImportError, match=r"keras-diagwise\[remote\].*'s3://bucket'"):
        Store("s3://key:secret@bucket")


def test_an_unknown_kind_of_url_is_named():
    pytest.importorskip("fsspec")
    with pytest.raises(ValueError, match="'nothing://host/path'") as error:
        Store("nothing://user:secret@host/path")
    assert "secret" not in str(error.value)


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """The user's cache folder, which is empty."""
    monkeypatch.setattr(locations, "default_location", lambda: str(tmp_path))
    return tmp_path


@pytest.fixture
def url():
    fsspec = pytest.importorskip("fsspec")
    yield "memory://decisions/here"
    fsspec.filesystem("memory").store.clear()
    fsspec.filesystem("memory").pseudo_dirs[:] = [""]


@pytest.fixture
def faults(monkeypatch):
    """What the requests of every remote folder do before they are answered, by the name
    of what is asked of fsspec."""
    found = {}
    answer = remote_folder.RemoteFolder._answer

    def faulty(self, ask):
        def asked():
            for fault in found.values():
                fault()
            return ask()

        return answer(self, asked)

    monkeypatch.setattr(remote_folder.RemoteFolder, "_answer", faulty)
    NEVER.clear()
    yield found
    NEVER.set()


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_a_url_holds_decisions_too(url, caplog):
    measured = [decision(with_batch(n)) for n in (2, 4, 64)]
    store = Store(url)
    assert store.document() == Document()
    assert store.merge(document(HERE, *measured)) == 3
    assert store.merge(document(UPDATED, measured[0])) == 1
    again = Store(url)
    assert again.get(HERE, with_batch(2)) == measured[0]
    assert again.nearest(HERE, PROBLEM) == measured[1]
    assert again.document() == document(HERE, *measured) | document(
        UPDATED, measured[0]
    )
    assert again.clear() == 4
    assert again.document() == Document()
    assert not warnings_of(caplog)


@pytest.mark.parametrize("content", [b"damaged", b" " * (MAX_BYTES + 1)])
def test_damage_behind_a_url_is_a_miss(url, content, caplog):
    store = Store(url)
    store.put(HERE, decision())
    store._folder._system.pipe_file(
        f"{url}/{decision_path(HERE.digest, PROBLEM)}", content
    )
    assert store.get(HERE, PROBLEM) is None
    assert len(warnings_of(caplog)) == 1


def fail():
    raise RuntimeError("could not reach s3://key:secret@bucket")


def refuse():
    raise PermissionError("The credentials key:secret are missing")


NEVER = threading.Event()
"""Until the end of a test."""


def hang():
    NEVER.wait(60)


FAULTS = {"failing": fail, "without credentials": refuse, "slow": hang}


def back(store):
    """As after the pause in which a store is left alone."""
    store._folder._away_until = 0.0


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
class TestWhileItCantBeReached:
    @pytest.fixture(autouse=True)
    def impatient(self, fault, monkeypatch):
        if fault is hang:
            monkeypatch.setattr(remote_folder, "TIMEOUT", 1.0)

    def test_this_machines_decisions_serve(self, url, home, faults, fault, caplog):
        """This machine's decisions serve, with one warning."""
        Store(home).put(HERE, decision())
        faults["all"] = fault
        store = Store(url)
        for _ in range(3):
            assert store.get(HERE, PROBLEM) == decision()
            assert store.nearest(HERE, with_batch(9)) == decision()
            assert store.environments() == [HERE]
            back(store)
        (said,) = warnings_of(caplog)
        assert said.startswith(f"keras_diagwise: {url} can't be reached")
        assert "secret" not in caplog.text

    def test_decisions_put_are_sent_later(self, url, home, faults, fault, caplog):
        """Decisions that are put serve, and appear behind the URL once it is back."""
        store = Store(url)
        assert store.put(HERE, decision(with_batch(2)))
        faults["all"] = fault
        assert store.put(HERE, decision())
        assert store.get(HERE, PROBLEM) == decision()
        assert Store(home).document() == Document()
        del faults["all"]
        assert Store(url).get(HERE, PROBLEM) == decision()
        back(store)
        store.get(HERE, with_batch(2))
        assert store.document() == document(HERE, decision(), decision(with_batch(2)))
        assert not [each for each in home.rglob("*") if each.is_file()]
        assert len(warnings_of(caplog)) == 1

    def test_the_next_process_sends_decisions(self, url, faults, fault):
        """A process that has ended leaves its decisions to the next one."""
        faults["all"] = fault
        Store(url).put(HERE, decision())
        del faults["all"]
        known = decision(passes=("forward",), native=1.0)
        plain = remote_folder.RemoteFolder(url)
        next_one = Store(url)
        next_one.put(HERE, known)
        assert plain.content(decision_path(HERE.digest, PROBLEM)) is not None
        assert next_one.get(HERE, PROBLEM) == known | decision()

    def test_a_lease_is_not_waited_for(self, url, faults, fault):
        faults["all"] = fault
        leases = Store(url).leases(HERE)
        with leases.held("0" * 16) as is_ours:
            assert is_ours

    def test_it_is_left_alone_for_a_while(self, url, faults, fault, monkeypatch):
        asked = []

        def count():
            asked.append(1)
            fault()

        faults["all"] = count
        store = Store(url)
        for n in range(5):
            assert store.get(HERE, with_batch(n + 1)) is None
        assert len(asked) == 1


def test_unsent_decisions_last_for_a_process(url, faults, monkeypatch):
    """Without a home, decisions that can't be sent last for the process."""
    monkeypatch.setattr(locations, "default_location", lambda: "~/nowhere")
    store = Store(url)
    faults["all"] = fail
    store.put(HERE, decision())
    assert store.get(HERE, PROBLEM) == decision()
    del faults["all"]
    back(store)
    assert store.get(HERE, PROBLEM) == decision()
    assert Store(url).get(HERE, PROBLEM) == decision()


def test_a_read_only_url_still_serves(url, monkeypatch, caplog):
    """A URL that may not be written still serves the decisions that it has."""
    Store(url).put(HERE, decision(with_batch(2)))
    written = []

    def refuse_to_write(self, path, content, **mode):
        written.append(path)
        raise PermissionError("key:secret may not write")

    monkeypatch.setattr(remote_folder.RemoteFolder, "_written", refuse_to_write)
    store = Store(url)
    with store.leases(HERE).held("0" * 16) as is_ours:
        assert is_ours
    assert store.put(HERE, decision())
    tried = len(written)
    for _ in range(3):
        assert store.get(HERE, PROBLEM) == decision()
        assert store.get(HERE, with_batch(2)) == decision(with_batch(2))
    assert len(written) <= tried + 1, "it is tried at every look-up"
    (said,) = warnings_of(caplog)
    assert "can't be written (writing is not permitted)" in said
    assert "secret" not in caplog.text


class NoBucket:
    """A file system of an object store, in which there is no such bucket."""

    protocol = ("s3", "s3a")

    def __init__(self):
        self.made = []

    def exists(self, path):
        return False

    def makedirs(self, path, exist_ok=False):
        self.made.append(path)

    def fail(self, *arguments, **options):
        raise FileNotFoundError("key:secret")

    ls = cat_file = pipe_file = rm_file = rmdir = modified = fail

    def invalidate_cache(self):
        pass


class CachedNoBucket(NoBucket):
    protocol = "simplecache"
    fs = NoBucket()


@pytest.mark.parametrize("file_system", [NoBucket, CachedNoBucket])
def test_a_missing_bucket_loses_nothing(url, home, monkeypatch, caplog, file_system):
    """A URL whose bucket does not exist is one that can't be written: nothing is
    created there, what is measured is kept here, and nobody waits for a lease."""
    missing = file_system()
    monkeypatch.setattr(
        remote_folder, "file_system", lambda location: (missing, "typo/here")
    )
    store = Store("memory://typo/here")
    with store.leases(HERE).held("0" * 16) as is_ours:
        assert is_ours
    assert store.put(HERE, decision())
    assert store.get(HERE, PROBLEM) == decision()
    assert "no such folder or bucket" in store.why_not_writable(HERE)
    assert missing.made == []
    monkeypatch.undo()
    monkeypatch.setattr(locations, "default_location", lambda: str(home))
    (said,) = warnings_of(caplog)
    assert "no such folder or bucket" in said
    assert "secret" not in caplog.text


def test_what_cant_be_sent_is_kept(url, home, faults, caplog):
    """What was kept here and can't be used, such as a newer version's, stays here."""
    faults["all"] = fail
    Store(url).put(HERE, decision())
    Store(url).put(HERE, decision(with_batch(2)))
    del faults["all"]
    path = decision_path(HERE.digest, PROBLEM)
    (kept,) = home.rglob(path.rpartition("/")[2])
    kept.write_bytes(newer := kept.read_bytes().replace(b'sion": 1', b'sion": 2'))
    store = Store(url)
    assert store.get(HERE, with_batch(2)) == decision(with_batch(2))
    assert store.get(HERE, PROBLEM) is None
    assert kept.read_bytes() == newer
    kept.write_bytes(newer.replace(b'sion": 2', b'sion": 1'))
    store = Store(url)
    assert store.get(HERE, PROBLEM) == decision()
    assert store.document() == document(HERE, decision(), decision(with_batch(2)))
    assert not [each for each in home.rglob("*") if each.is_file()]


def test_another_versions_object_is_not_replaced(url, home, faults, caplog):
    """Nothing is sent over a later version's decision; what was kept here stays."""
    faults["all"] = fail
    Store(url).put(HERE, decision())
    del faults["all"]
    path = decision_path(HERE.digest, PROBLEM)
    (kept,) = home.rglob(path.rpartition("/")[2])
    ours = kept.read_bytes()
    store = Store(url)
    store._folder.write(path, newer := ours.replace(b'sion": 1', b'sion": 2'), None)
    assert store.get(HERE, PROBLEM) == decision()
    assert store._folder.content(path) == newer
    assert kept.read_bytes() == ours
    store.put(HERE, decision(passes=PASSES[:1]))
    assert store._folder.content(path) == newer


def test_a_forked_process_opens_its_own(url, monkeypatch):
    """fsspec's asynchronous file systems refuse to serve a forked process."""
    store = Store(url)
    store.put(HERE, decision())
    opened = store._folder._system
    assert store._folder._system is opened
    monkeypatch.setattr(remote_folder.os, "getpid", lambda: 1)
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").clear_instance_cache()
    assert store.get(HERE, PROBLEM) == decision()
    assert store._folder._system is not opened


def test_an_unreachable_url_is_not_cleared(url, faults):
    """Of a URL that can't be reached nothing is cleared, nor of what waits to be sent
    there."""
    faults["all"] = fail
    store = Store(url)
    store.put(HERE, decision())
    back(store)
    with pytest.raises(OSError):
        store.clear()
    del faults["all"]
    back(store)
    assert store.get(HERE, PROBLEM) == decision()


def test_a_lagging_listing_hides_no_decision(url, monkeypatch):
    """A listing that lags behind hides no decision of the very problem."""
    Store(url).put(HERE, decision())
    monkeypatch.setattr(remote_folder.RemoteFolder, "names", lambda self, path: [])
    store = Store(url)
    assert store.get(HERE, PROBLEM) == decision()
    assert store.nearest(HERE, with_batch(9)) is None
    assert not store.put(HERE, decision())


def test_a_stale_listing_does_no_harm(url, monkeypatch, caplog):
    """A listing that names a decision that is gone does no harm."""
    store = Store(url)
    store.put(HERE, decision())
    store.put(HERE, decision(with_batch(64)))
    store._folder.remove(decision_path(HERE.digest, PROBLEM))
    listed = store._folder.names
    name = decision_path(HERE.digest, PROBLEM).rpartition("/")[2]
    monkeypatch.setattr(store._folder, "names", lambda path: [*listed(path), name])
    assert store.nearest(HERE, with_batch(9)) == decision(with_batch(64))
    assert not warnings_of(caplog)


def test_only_one_worker_leases_behind_a_url(url):
    leases = [Store(url).leases(HERE) for _ in range(2)]
    what = "0" * 16
    with leases[0].held(what) as first, leases[1].held(what) as second:
        assert (first, second) == (True, False)
    with leases[1].held(what) as later:
        assert later


def test_a_file_url_is_a_folder(tmp_path):
    store = Store(f"file://{tmp_path}/here")
    assert isinstance(store._folder, LocalFolder)
    assert store.put(HERE, decision())
    assert Store(tmp_path / "here").get(HERE, PROBLEM) == decision()
