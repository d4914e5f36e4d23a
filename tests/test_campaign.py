"""The campaign's queue: in order, each job once, and on after it was ended."""

import json
import time

import pytest

from keras_diagwise.problem import Problem
from tuning import campaign
from tuning.campaign import Job, Scale, all_jobs, full, jobs_of, rehearsal
from tuning.records import Records


class Fake:
    """A worker that knows what each job comes to."""

    outcomes: dict = {}  # noqa: RUF012
    asked: list = []  # noqa: RUF012

    def __init__(self, backend):
        self.backend = backend

    def ask(self, job, seconds):
        assert job.backend == self.backend
        self.asked.append(job)
        outcome = self.outcomes.get(job.name, {"answer": {}})
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def end(self):
        self.backend = None


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(campaign, "Worker", Fake)
    monkeypatch.setattr(Fake, "asked", [])
    monkeypatch.setattr(Fake, "outcomes", {})
    return Fake


def small():
    return rehearsal()


def run(folder, seconds=3600.0):
    return campaign.run(small(), ["torch", "jax"], time.monotonic() + seconds, folder)


def test_each_job_is_done_once_in_order(fake, tmp_path):
    assert run(tmp_path)
    expected = list({json.dumps(job.key): job for job in all_jobs(small())}.values())
    assert fake.asked == expected
    fake.asked.clear()
    assert run(tmp_path)
    assert fake.asked == []


def test_what_was_cut_off_goes_on(fake, tmp_path):
    fake.outcomes["settings"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    before = len(fake.asked)
    fake.outcomes.clear()
    assert run(tmp_path)
    assert fake.asked[before].name == "settings"
    jobs = {json.dumps(job.key) for job in all_jobs(small())}
    lines = Records(tmp_path / "campaign.jsonl").lines
    assert {json.dumps(line["key"]) for line in lines} == jobs
    assert len(lines) == len(jobs)


def test_a_job_that_crashes_twice_is_dropped(fake, tmp_path):
    """A job that ends its process twice is not tried again."""
    for _ in range(3):
        fake.outcomes["profile"] = KeyboardInterrupt()
        try:
            run(tmp_path)
        except KeyboardInterrupt:
            continue
    assert sum(job.name == "profile" for job in fake.asked) == campaign.MAX_TRIES


def test_without_time_nothing_is_begun(fake, tmp_path):
    assert not run(tmp_path, seconds=1.0)
    assert fake.asked == []


def test_a_job_that_takes_too_long_is_told(fake, tmp_path):
    """A job that takes too long is recorded, and the next gets a new process."""
    fake.outcomes["limits"] = TimeoutError()
    assert run(tmp_path)
    lines = Records(tmp_path / "campaign.jsonl").lines
    failed = [line for line in lines if "error" in line]
    assert [line["key"][0] for line in failed] == ["limits", "limits"]
    assert "60 s" in failed[0]["error"]


def test_the_full_campaign_has_its_order():
    """The full campaign begins with limits, compiled programs and a comparison."""
    jobs = list(jobs_of(full(), ["torch", "jax"]))
    assert [job.name for job in jobs[:3]] == ["limits", "compile_programs", "compare"]
    assert jobs[2].backend == "torch"
    assert Problem.from_dict(jobs[2].arguments["problem"]).batch == 64
    paper = [
        job
        for job in jobs
        if any("diagonal:32" in each for each in job.arguments.get("candidates", ()))
    ]
    assert {job.backend for job in paper} == {"torch", "jax"}
    steps = [job.arguments for job in jobs if job.name == "step"]
    assert {each["plan"] for each in steps} == {None, "triton", "auto"}


def test_a_table_of_comparisons_is_printed(tmp_path, capsys):
    problem = small().problems[0]
    passes = {
        name: {
            "native": {"seconds": 3e-4},
            "triton:4:16": {"seconds": 1e-4},
            "direct": {"failure": "wrong numbers"},
        }
        for name in ("forward", "input_gradient", "kernel_gradient")
    }
    records = Records(tmp_path / "campaign.jsonl")
    records.add(Job("limits", "torch", {}).key, answer={"copies": [[1024, 1e12]]})
    job = Job("compare", "torch", {"problem": problem.to_dict(), "candidates": []})
    records.add(job.key, answer={"passes": passes})
    records.add(Job("step", "jax", {"name": "M"}).key, error="no memory")
    campaign.show(tmp_path)
    text = capsys.readouterr().out
    assert "triton:4:16 3.00×" in text
    assert "failed: direct" in text
    assert "no memory" in text


def test_small_scale_suits_the_interpreter():
    assert isinstance(small(), Scale)
    assert all(each.taps <= campaign.REHEARSED for each in small().problems)
