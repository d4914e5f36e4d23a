"""Leases: one worker at a time holds one, and none holds for ever."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from keras_diagwise.storage import leases
from keras_diagwise.storage.folders import LocalFolder, MemoryFolder, NoFolder
from keras_diagwise.storage.leases import Leases
from tests.threads import THREADS, in_threads

WHAT, OTHER = "0123456789abcdef", "fedcba9876543210"
LEASE_SECONDS = 0.2


@pytest.fixture(params=["disk", "memory"])
def folder(request, tmp_path):
    return LocalFolder(str(tmp_path)) if request.param == "disk" else MemoryFolder()


def fail(error):
    raise AssertionError(error)


def worker(folder, seconds=60.0, failed=fail):
    return Leases(folder, "environment/claims", failed, seconds)


def files_in(folder):
    return folder.names("environment/claims")


def content_of(folder, name):
    return json.loads(folder.content(f"environment/claims/{name}"))


def plant(folder, content, generation=1):
    path = f"environment/claims/{WHAT}-{generation}.json"
    assert folder.create(path, content)


def lease_of_another(folder, generation=1, **changes):
    """A lease as another worker's, on another machine, left behind."""
    with worker(folder).held(OTHER):
        (name,) = (each for each in files_in(folder) if each.startswith(OTHER))
        values = content_of(folder, name)
    values |= {"host": "elsewhere", **changes}
    plant(folder, json.dumps(values).encode(), generation)


def test_only_one_holds_a_lease(folder):
    one, other = worker(folder), worker(folder)
    with one.held(WHAT) as first, other.held(WHAT) as second:
        assert (first, second) == (True, False)
        with other.held(OTHER) as another_thing:
            assert another_thing
    with other.held(WHAT) as later:
        assert later
    assert not files_in(folder), "a lease was left behind"


def test_one_of_many_that_ask_gets_it(folder):
    held, everyone = [], threading.Barrier(THREADS)

    def ask(_):
        with worker(folder).held(WHAT) as is_ours:
            held.append(is_ours)
            everyone.wait(60)

    assert not in_threads(ask)
    assert sorted(held) == [False] * (THREADS - 1) + [True]


def test_a_lease_names_holder_and_expiry(folder):
    with worker(folder, seconds=60.0).held(WHAT):
        (name,) = files_in(folder)
        values = content_of(folder, name)
    assert values["host"] == leases.host()
    assert values["process"] == os.getpid()
    assert values["expires"] == values["time"] + 60.0


def test_a_lease_is_renewed_while_it_is_held(folder):
    with worker(folder, LEASE_SECONDS).held(WHAT):
        (name,) = files_in(folder)
        first = content_of(folder, name)["expires"]
        wait_until(lambda: content_of(folder, name)["expires"] > first + LEASE_SECONDS)
        with worker(folder, LEASE_SECONDS).held(WHAT) as is_ours:
            assert not is_ours


def test_an_expired_lease_is_taken_by_one(folder):
    lease_of_another(folder, expires=time.time() - leases.CLOCKS_DIFFER - 1)
    with worker(folder).held(WHAT) as first, worker(folder).held(WHAT) as second:
        assert (first, second) == (True, False)
        assert len(files_in(folder)) == 2
    assert not files_in(folder), "the expired lease was left behind"


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": "else"}', b"\xff"])
def test_an_invalid_lease_expires_in_time(folder, content):
    """An invalid lease, or one of a wrong clock, holds no longer than a lease."""
    if content:
        plant(folder, content)
    else:
        lease_of_another(folder, expires=time.time() + 1e9)
    asking = worker(folder, LEASE_SECONDS)
    with asking.held(WHAT) as at_first:
        assert not at_first
    wait_until(lambda: takes(asking))


def takes(asking):
    with asking.held(WHAT) as is_ours:
        return is_ours


@pytest.mark.skipif(os.name != "posix", reason="only there a process is looked for")
def test_an_ended_process_holds_no_lease(folder):
    """The lease of a process of this machine that has ended is over."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lease_of_another(folder, host=leases.host(), process=ended.pid)
    assert takes(worker(folder))


def test_clocks_may_differ(folder):
    """A lease of another machine holds although its clock is behind ours; one of this
    machine does not."""
    lease_of_another(folder, expires=time.time() - 31)
    assert not takes(worker(folder))
    lease_of_another(folder, generation=2, host=leases.host(), expires=time.time() - 1)
    assert takes(worker(folder))


@pytest.mark.skipif(os.name != "posix", reason="only there a process is looked for")
def test_a_containers_process_is_not_looked_for(folder):
    """A container may have its machine's name, and processes of its own."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host, process = leases.host(), ended.pid
    lease_of_another(folder, host=host, process=process, namespace="pid:[1]")
    assert not takes(worker(folder))


def test_a_hidden_start_leaves_the_namespace(monkeypatch):
    """A sandbox may refuse to say when its machine started."""
    whole = leases.namespace.__wrapped__()
    monkeypatch.setattr(leases.Path, "read_text", refuse)
    part = leases.namespace.__wrapped__()
    assert whole.endswith(part)
    assert bool(part) == sys.platform.startswith("linux")


def refuse(*arguments):
    raise PermissionError("planted")


def test_a_lease_taken_anew_meanwhile_is_seen(folder, monkeypatch):
    """Between looking at a lease and taking the next one, its holder may release it and
    take it anew, under the same name."""
    holder, asking = worker(folder), worker(folder)
    is_over = asking._is_over
    with contextlib.ExitStack() as held:
        held.enter_context(holder.held(WHAT))

        def after_a_look(name):
            monkeypatch.setattr(asking, "_is_over", is_over)
            held.close()
            held.enter_context(holder.held(WHAT))
            return True

        monkeypatch.setattr(asking, "_is_over", after_a_look)
        assert not takes(asking)
        assert len(files_in(folder)) == 1
    assert takes(asking)


def test_a_lease_taken_from_the_start_is_seen(folder, monkeypatch):
    """Between looking at an expired lease and taking the next one, two others may take
    and release it, so that the generations start anew."""
    asking, expired = worker(folder), time.time() - 1
    lease_of_another(folder, generation=3, host=leases.host(), expires=expired)
    create = folder.create
    with contextlib.ExitStack() as held:

        def after_two_others(path, content):
            monkeypatch.setattr(folder, "create", create)
            assert takes(worker(folder))
            assert held.enter_context(worker(folder).held(WHAT))
            return create(path, content)

        monkeypatch.setattr(folder, "create", after_two_others)
        assert not takes(asking)
        assert files_in(folder) == [f"{WHAT}-1.json"]
    assert takes(asking)


def test_without_leases_each_is_on_its_own():
    """Where no lease can be made, each worker is on its own."""
    said = []
    with worker(NoFolder("planted"), failed=said.append).held(WHAT) as is_ours:
        assert is_ours
    assert [str(error) for error in said] == ["planted"]


def test_a_disk_without_links_serves_too(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refuse)
    test_only_one_holds_a_lease(LocalFolder(str(tmp_path)))
    assert not [each for each in tmp_path.rglob("*") if each.is_file()]


def test_a_failure_frees_the_lease(folder):
    """A lease is free again when the work under it fails."""
    with pytest.raises(KeyboardInterrupt), worker(folder).held(WHAT):
        raise KeyboardInterrupt
    assert takes(worker(folder))


def wait_until(holds):
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
