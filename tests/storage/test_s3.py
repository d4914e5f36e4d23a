"""A store behind `s3://`, on a server of S3's protocol on this machine, that can be
slow, fail, or list what was there before (`nox -s remote`)."""

import contextlib
import logging
import threading

import keras
import numpy as np
import pytest

import keras_diagwise as kd
from keras_diagwise.models import shared_check
from keras_diagwise.models.report import ModelCheck
from keras_diagwise.ops import dispatcher
from keras_diagwise.storage import locations, remote_folder
from keras_diagwise.storage.document import Document
from keras_diagwise.storage.files import decision_path
from keras_diagwise.storage.store import Store
from tests.samples import HERE, PROBLEM, decision, document, with_batch
from tests.threads import THREADS, in_threads

s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")
serving = pytest.importorskip("werkzeug.serving")

BUCKET = "decisions"
URL = f"s3://{BUCKET}/here"
SECRET = "planted-secret"


class Faulty:
    """moto's S3, with a fault.

    Attributes:
        fault: `None`, `"slow"`, `"failing"`, `"denied"`, or `"lagging"`, by which
            listings are empty.
        requests: how many came.
    """

    def __init__(self):
        self._served = moto_server.DomainDispatcherApplication(
            moto_server.create_backend_app
        )
        self.fault = None
        self.requests = 0
        self.healed = threading.Event()

    def __call__(self, environment, respond):
        self.requests += 1
        if self.fault == "slow":
            self.healed.wait(60)
        if self.fault == "failing":
            respond("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        if self.fault == "denied":
            return self._error(respond, "403 Forbidden", b"AccessDenied")
        if self.fault == "lagging" and "list-type" in environment["QUERY_STRING"]:
            environment["QUERY_STRING"] += "&start-after=~"
        return self._served(environment, respond)

    def _error(self, respond, status, code):
        body = b"<Error><Code>%s</Code></Error>" % code
        length = ("Content-Length", str(len(body)))
        respond(status, [("Content-Type", "application/xml"), length])
        return [body]

    @contextlib.contextmanager
    def at_fault(self, fault):
        self.fault = fault
        self.healed.clear()
        try:
            yield
        finally:
            self.fault = None
            self.healed.set()


@pytest.fixture(scope="module")
def server():
    app = Faulty()
    found = serving.make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    app.endpoint = f"http://127.0.0.1:{found.server_port}"
    yield app
    found.shutdown()


@pytest.fixture(autouse=True)
def s3(server, monkeypatch, tmp_path):
    """An empty bucket, and the user's own store, empty too."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "planted")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(locations, "default_location", lambda: str(tmp_path))
    monkeypatch.setattr(remote_folder, "TIMEOUT", 3.0)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir(BUCKET)
    yield system
    system.invalidate_cache()
    system.rm(BUCKET, recursive=True)


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def back(store):
    """As after the pause in which a store is left alone."""
    store._folder._away_until = 0.0


def test_a_bucket_holds_decisions(caplog):
    measured = [decision(with_batch(n)) for n in (2, 4, 64)]
    assert Store(URL).merge(document(HERE, *measured)) == 3
    store = Store(URL)
    assert store.get(HERE, with_batch(2)) == measured[0]
    assert store.get(HERE, with_batch(3)) is None
    assert store.nearest(HERE, PROBLEM) == measured[1]
    assert store.document() == document(HERE, *measured)
    assert store.clear() == 3
    assert Store(URL).document() == Document()
    assert not warnings_of(caplog)


def test_a_look_up_takes_one_request(server):
    store = Store(URL)
    store.put(HERE, decision())
    before = server.requests
    assert store.get(HERE, PROBLEM) == decision()
    assert server.requests == before + 1


def test_an_empty_object_is_passed_over(s3, caplog):
    """An empty object is passed over, and the others serve."""
    store = Store(URL)
    store.put(HERE, decision())
    path = decision_path(HERE.digest, with_batch(2))
    s3.pipe_file(f"{BUCKET}/here/{path}", b"")
    assert store.get(HERE, with_batch(2)) is None
    assert store.get(HERE, PROBLEM) == decision()
    (said,) = warnings_of(caplog)
    assert path in said


def test_of_many_workers_one_gets_a_lease():
    held, everyone = [], threading.Barrier(THREADS)

    def ask(_):
        with Store(URL).leases(HERE).held("0" * 16) as is_ours:
            held.append(is_ours)
            everyone.wait(60)

    assert not in_threads(ask)
    assert sorted(held) == [False] * (THREADS - 1) + [True]


@pytest.mark.parametrize("fault", ["slow", "failing", "denied"])
def test_this_machine_serves_under_a_fault(server, fault, caplog):
    """Under a fault this machine serves, and decisions appear once it is over."""
    store = Store(URL)
    store.put(HERE, decision(with_batch(2)))
    with server.at_fault(fault):
        assert store.put(HERE, decision())
        assert store.get(HERE, PROBLEM) == decision()
        assert store.get(HERE, with_batch(2)) is None
    back(store)
    assert store.get(HERE, with_batch(2)) == decision(with_batch(2))
    assert Store(URL).document() == document(HERE, decision(), decision(with_batch(2)))
    (said,) = warnings_of(caplog)
    assert said.startswith(f"keras_diagwise: {URL} can't be reached")
    assert SECRET not in caplog.text


def test_without_credentials_local_serves(monkeypatch, caplog):
    """Without credentials, this machine's decisions serve."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    s3fs.S3FileSystem.clear_instance_cache()
    store = Store(URL)
    assert store.put(HERE, decision())
    assert store.get(HERE, PROBLEM) == decision()
    (said,) = warnings_of(caplog)
    assert "can't be reached" in said


def test_credentials_in_the_url_are_not_said(server, caplog):
    url = f"s3://planted:{SECRET}@{BUCKET}/here"
    with server.at_fault("denied"):
        store = Store(url)
        store.put(HERE, decision())
        store.get(HERE, PROBLEM)
    assert SECRET not in repr(store)
    assert SECRET not in caplog.text
    assert warnings_of(caplog)


def test_a_lagging_listing_hides_no_decision(server):
    """A listing that lags behind hides no decision of the very problem."""
    Store(URL).put(HERE, decision())
    with server.at_fault("lagging"):
        store = Store(URL)
        assert store.get(HERE, PROBLEM) == decision()
        assert not store.put(HERE, decision())
        assert store.nearest(HERE, with_batch(9)) is None
        first, second = store.leases(HERE), Store(URL).leases(HERE)
        with first.held("0" * 16) as ours, second.held("0" * 16) as theirs:
            assert (ours, theirs) == (True, False)


@pytest.mark.usefixtures("nothing_known", "runner")
@pytest.mark.parametrize("fault", ["slow", "failing", "denied", "lagging"])
def test_training_and_tuning_survive_a_fault(server, fault, monkeypatch):
    check = ModelCheck(skipped="not in this test"), []
    monkeypatch.setattr(shared_check, "check_step", lambda *a, **k: check)
    layers = [keras.Input((8, 8, 4)), keras.layers.DepthwiseConv2D(2)]
    model = kd.convert(keras.Sequential(layers), verbose=0)
    model.compile("sgd", "mse")
    images, targets = np.ones((2, 8, 8, 4)), np.zeros((2, 7, 7, 4))
    monkeypatch.setattr(dispatcher.planner, "store", Store(URL))
    with server.at_fault(fault):
        model.train_on_batch(images, targets)
        report = kd.tune(model, batch_size=2, verbose=0)
        assert report.undecided == ()
        model.train_on_batch(images, targets)
        plans = {str(line.plan) for line in kd.summary(model, batch_size=2)}
        assert plans == {"direct"}
    back(dispatcher.store)
    dispatcher.store.get(HERE, PROBLEM)
    (found,) = Store(URL).document()
    assert found[1].problem == report.rows[0].problem


def test_a_slow_server_is_not_asked_again(server):
    """No time is wasted on a server that does not answer."""
    store = Store(URL)
    with server.at_fault("slow"):
        store.get(HERE, PROBLEM)
        before = server.requests
        for n in range(20):
            store.get(HERE, with_batch(n + 1))
        assert server.requests == before
