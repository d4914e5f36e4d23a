"""What is predicted of `triton`'s launches, against machine code that was read."""

import dataclasses
import itertools
import json

import hypothesis
import pytest
from hypothesis import strategies as st

from keras_diagwise.algorithms import Triton
from keras_diagwise.algorithms.algorithm import Device
from keras_diagwise.algorithms.triton import cost
from keras_diagwise.algorithms.triton.launch import program_of
from keras_diagwise.problem import PASSES
from keras_diagwise.tuner.pruning import why_outpredicted
from tests.algorithms.suite import depthwise
from tests.strategies import problems
from tuning import gpu_costs
from tuning.gpu_programs import results_of
from tuning.records import RESULTS
from tuning.workloads import headlines

H100 = Device(bytes_per_second=3.0e12, multiprocessors=132, capability=(9, 0))

WITHIN = (0.7, 1.25)
"""Of what was read: 0.72 and 1.16 were seen of the programs that it is fitted to."""

kernels = pytest.mark.parametrize("pass_name", PASSES)


def drawn():
    """A problem that `triton` computes, by one of its candidates."""
    return st.tuples(
        problems(ranks=(1, 2), dtypes=gpu_costs.DTYPES, depthwise=True),
        st.sampled_from([Triton(4, 8), Triton(4, 16), Triton(8, 8), Triton(8, 16)]),
    ).filter(lambda each: each[1].misfit(each[0]) is None)


def seconds(problem, candidate, pass_name, batch, device=H100):
    asked = dataclasses.replace(problem, batch=batch)
    return candidate.predicted_seconds(asked, pass_name, device)


@hypothesis.given(each=drawn(), batch=st.integers(1, 3000))
@pytest.mark.parametrize("pass_name", PASSES[:2])
def test_more_images_take_no_less(each, batch, pass_name):
    less, more = (seconds(*each, pass_name, n) for n in (batch, batch + 1))
    assert less <= more


@hypothesis.given(each=drawn(), batch=st.integers(1, 3000))
def test_twice_the_images_take_no_less(each, batch):
    """In the kernel gradient, whose sum is divided otherwise for another batch: one
    image more can make the division even."""
    less, more = (seconds(*each, PASSES[2], n) for n in (batch, 2 * batch))
    assert less <= more


@hypothesis.given(each=drawn(), batch=st.integers(1, 3000))
@kernels
def test_never_below_the_time_of_the_bytes(each, batch, pass_name):
    least = dataclasses.replace(each[0], batch=batch).least_bytes
    predicted = seconds(*each, pass_name, batch)
    assert predicted > least / H100.bytes_per_second
    faster = H100._replace(bytes_per_second=4.3e12)
    assert seconds(*each, pass_name, batch, faster) <= predicted


@hypothesis.given(each=drawn(), batch=st.integers(1, 3000))
@kernels
def test_more_multiprocessors_take_no_longer(each, batch, pass_name):
    more = H100._replace(multiprocessors=264)
    assert seconds(*each, pass_name, batch, more) <= seconds(*each, pass_name, batch)


@kernels
def test_a_large_problem_is_bound_by_bytes(pass_name):
    """3×3 in float32: an H100 executes 79 instructions while it moves a result."""
    problem = depthwise((56, 56), 144, (3, 3), batch=64)
    bound = problem.least_bytes / H100.bytes_per_second
    assert seconds(problem, Triton(8, 16), pass_name, 64) < 1.1 * bound


def test_idle_lanes_are_paid_for():
    """A tile is 32 bytes wide at least: of 9 channels it takes two."""
    aligned, wide = (depthwise((64, 64), n, (7, 7), batch=64) for n in (8, 9))
    ratio = seconds(wide, Triton(), "forward", 64) / seconds(
        aligned, Triton(), "forward", 64
    )
    assert ratio > 1.5


def test_some_multiprocessors_may_be_idle():
    problem = depthwise((28, 28), 32, (7, 7), batch=1)
    how = Triton(8, 16).launch(problem, "forward", 1)
    assert how.programs < H100.multiprocessors
    some, all_of_them = (
        cost.largest_share(how, problem.dtype, n).instructions
        for n in (132, how.programs)
    )
    assert some == all_of_them


def test_of_float64_nothing_is_predicted():
    problem = depthwise((8, 8), 4, (3, 3), dtype="float64")
    assert Triton().predicted_seconds(problem, "forward", H100) is None


def test_coefficients_fit_the_readings():
    every = gpu_costs.samples().values()
    assert len(every) > 200
    for kernel, fit in cost.FITS.items():
        some = [each for each in every if each.how.kernel == kernel]
        assert gpu_costs.fitted(some) == pytest.approx(fit, abs=0.02)
        ratios = gpu_costs.ratios(some, fit)
        assert WITHIN[0] < min(ratios)
        assert max(ratios) < WITHIN[1]


def read_of_headlines():
    """The table of programs in the docs: problem, pass, candidate, instructions."""
    rows = json.loads((RESULTS / "gpu-programs.json").read_text())["headlines"]
    dtypes = itertools.product(headlines(), gpu_costs.DTYPES)
    known = [dataclasses.replace(each, dtype=dtype) for each, dtype in dtypes]
    by_name = {str(each): each for each in known}
    for row in rows:
        candidate = Triton.parse(row["candidate"].split(":")[1:])
        yield by_name[row["problem"]], row["pass"], candidate, row["instructions"]


def test_close_to_the_committed_table():
    """Of which float16, among others, was not fitted to."""
    rows = list(read_of_headlines())
    assert len(rows) == 72
    for problem, pass_name, candidate, read in rows:
        how = candidate.launch(problem, pass_name, problem.batch)
        counts = cost.counts_of(how.kernel, how.constants)
        predicted = cost.of_counts(counts, cost.FITS[how.kernel], problem.dtype)
        results = results_of(how.kernel, dict(how.constants))
        ratio = predicted / results / read
        assert WITHIN[0] < ratio < WITHIN[1], (problem, pass_name, candidate)


@pytest.mark.parametrize("bytes_per_second", [0.6e12, 3.0e12, 1e14])
def test_the_best_reading_is_not_pruned(monkeypatch, bytes_per_second):
    """Also where the bytes count for more, or for nothing."""
    device = H100._replace(bytes_per_second=bytes_per_second)
    found = gpu_costs.samples()

    def instructions(how, dtype):
        return found[program_of(how, dtype, gpu_costs.HEADLINE)].executed_by(how)

    pruned = 0
    for problem, pass_name in gpu_costs.asked():
        variants = list(Triton.variants(problem, pass_name))
        predicted, by_reading = (
            {n: n.predicted_seconds(problem, pass_name, device) for n in variants}
            for _ in mended(monkeypatch, instructions)
        )
        best = min(predicted.values())
        kept = [n for n, s in predicted.items() if why_outpredicted(s, best) is None]
        pruned += len(predicted) - len(kept)
        assert min(by_reading[each] for each in kept) == min(by_reading.values())
    assert bool(pruned) == (bytes_per_second > 1e12)


def mended(monkeypatch, instructions):
    """Twice: with the instructions that are estimated, and with others."""
    yield
    with monkeypatch.context() as patch:
        patch.setattr(cost, "instructions", instructions)
        yield
