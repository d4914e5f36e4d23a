"""Workers that tune the same model together: without faults each thing is measured
once, and all end with the same plans; one that is killed holds up nobody."""

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_diagwise.problem import PASSES
from keras_diagwise.storage.store import Store

ROOT = Path(__file__).parents[2]
PROBLEMS = 4

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def crowd(*arguments):
    command = [sys.executable, "-m", "tests.models.crowd", *map(str, arguments)]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def lines_of(log, kind):
    lines = map(json.loads, log.read_text().splitlines())
    return [(pid, *rest) for pid, found, *rest in lines if found == kind]


def test_workers_measure_once_and_agree(tmp_path):
    """Workers that start together measure each problem once, and agree."""
    assert crowd("together", tmp_path)["statuses"] == [0, 0]
    log = tmp_path / "log"
    measured = collections.Counter(
        tuple(rest) for _, *rest in lines_of(log, "measured")
    )
    assert len(measured) == PROBLEMS * len(PASSES)
    assert set(measured.values()) == {1}
    assert len(lines_of(log, "checked")) == 1
    (_, *one), (_, *other) = lines_of(log, "ended")
    assert one == other
    plans, undecided, check = one
    assert undecided == 0
    assert check["overruled"] == ["forward"]
    assert len(set(plans.values())) == 2, "what was overruled is not in the plans"


def test_a_killed_worker_holds_up_nobody(tmp_path):
    """A worker that is killed at any moment holds up nobody."""
    moments = 20
    assert crowd("killed", tmp_path, moments)["statuses"] == [0] * moments
    for n in range(moments):
        log = tmp_path / f"log-{n}"
        *_, (_, plans, undecided, _) = lines_of(log, "ended")
        assert undecided == 0
        assert "direct" in plans.values()
        decisions = [each for _, each in Store(tmp_path / str(n)).document()]
        assert len(decisions) == PROBLEMS
        assert all(set(each.passes) == set(PASSES) for each in decisions)
