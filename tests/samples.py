"""Environments, decisions and documents that the tests of planning are made of."""

import dataclasses

from hypothesis import strategies as st

from keras_diagwise.decision import FAILURES, Comparison, Decision, Outcome
from keras_diagwise.environment import Environment
from keras_diagwise.problem import PASSES
from keras_diagwise.storage.document import Document
from tests.algorithms.suite import depthwise

HERE = Environment(
    backend="jax",
    compiler_mode="xla",
    device_kind="cpu",
    device_name="here",
    cores=2,
    flags=(("x64", False), ("matmul_precision", None)),
    versions=(("jax", "1.2.3"), ("jaxlib", "1.2.3")),
    revisions=(("native", 1), ("direct", 2)),
)
ELSEWHERE = dataclasses.replace(HERE, device_name="elsewhere")
UPDATED = dataclasses.replace(HERE, versions=(("jax", "1.2.4"), ("jaxlib", "1.2.4")))

PROBLEM = depthwise((28, 28), 64, (3, 3), batch=8)
MEASURED = "2026-01-02T03:04:05+00:00"


def with_batch(batch, problem=PROBLEM):
    return dataclasses.replace(problem, batch=batch)


def comparison(measured=MEASURED, **seconds):
    """Candidates that were timed, by their names."""
    return Comparison({n: Outcome(seconds=s) for n, s in seconds.items()}, measured)


def decision(problem=PROBLEM, measured=MEASURED, passes=PASSES, **seconds):
    """The same times for each pass."""
    times = seconds or {"native": 1.0, "direct": 0.1}
    return Decision(problem, {name: comparison(measured, **times) for name in passes})


def document(environment, *decisions):
    return Document.of(environment, decisions)


SECONDS = st.sampled_from([1e-6, 0.0123, 0.5, 1.0, 2.0])
OUTCOMES = st.one_of(
    st.builds(
        Outcome,
        seconds=SECONDS,
        error=st.sampled_from([None, 1e-7]),
        gain=st.sampled_from([None, 0.9, 1.5]),
    ),
    st.builds(
        Outcome,
        failure=st.sampled_from(FAILURES),
        reason=st.sampled_from(["", "too slow"]),
    ),
)
COMPARISONS = st.builds(
    Comparison,
    st.dictionaries(
        st.sampled_from(["native", "direct", "direct:rows", "diagonal:8"]),
        OUTCOMES,
        min_size=1,
    ),
    st.sampled_from([MEASURED, "2026-02-02T03:04:05+00:00"]),
    st.sampled_from([None, 2e-5]),
    st.sampled_from([None, "the whole step was slower"]),
)
DECISIONS = st.builds(
    Decision,
    st.sampled_from([PROBLEM, with_batch(4), depthwise((9,), 8, (3,))]),
    st.dictionaries(st.sampled_from(PASSES), COMPARISONS, min_size=1),
)


@st.composite
def documents(draw):
    """Some decisions of some environments."""
    found = Document()
    for environment in draw(st.lists(st.sampled_from([HERE, ELSEWHERE, UPDATED]))):
        found |= document(environment, *draw(st.lists(DECISIONS, max_size=4)))
    return found
