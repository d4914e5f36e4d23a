"""Plans: how they are written, checked and kept."""

import pickle

import pytest

from keras_diagwise import Plan
from keras_diagwise.algorithms import Diagonal, Direct, Native
from keras_diagwise.plan import plan_to_config, standardize_plan
from tests.algorithms.suite import depthwise

TEXTS = [
    "native",
    "direct",
    "direct:rows",
    "direct:compiled",
    "direct:rows:compiled",
    "diagonal",
    "diagonal:32",
    "diagonal:32:split",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_the_plan_of_all_passes(text):
    """A text is the plan of all passes, and comes back."""
    plan = standardize_plan(text)
    assert plan == Plan(text, text, text)
    assert plan_to_config(plan) == text == str(plan)
    assert standardize_plan(plan_to_config(plan)) == plan


def test_a_mixed_plan_comes_back():
    plan = Plan(forward="direct", kernel_gradient="diagonal:8:split")
    assert plan["forward"] == Direct()
    assert plan["input_gradient"] == Native()
    assert plan["kernel_gradient"] == Diagonal(8, "split")
    assert standardize_plan(plan_to_config(plan)) == plan
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert hash(pickle.loads(pickle.dumps(plan))) == hash(plan)


def test_the_default_lowering_has_one_name():
    assert Plan("diagonal:8:grouped") == Plan("diagonal:8")
    assert Plan(Diagonal(8)) == Plan("diagonal:8")


def test_auto_stays_a_word():
    assert standardize_plan("auto") == "auto" == plan_to_config("auto")


def test_native_throughout_is_told():
    assert Plan().is_native
    assert not Plan(kernel_gradient="direct").is_native


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        ("fastest", "'fastest'"),
        ("diagonal:0", "partition_size=0"),
        ("diagonal:-2", "partition_size=-2"),
        ("diagonal:many", "partition_size='many'"),
        ("diagonal:8:batched", "lowering='batched'"),
        ("diagonal:8:split:more", "`diagonal` takes"),
        ("native:2", "`native` takes no parameters"),
        ("direct:columns", "lowering='columns'"),
        (3, "plan=3"),
        (None, "plan=None"),
        ({"backward": "direct"}, "backward"),
        ({"forward": 3}, "forward=3"),
    ],
)
def test_an_invalid_plan_is_named(plan, named):
    """An invalid plan is named with its value."""
    with pytest.raises(ValueError) as error:
        standardize_plan(plan)
    assert named in str(error.value)


def test_an_oversized_partition_is_refused():
    """A partition size above the number of channels is refused."""
    with pytest.raises(ValueError, match=r"channels \(=6\).*partition_size=8"):
        Plan("diagonal:8").check(depthwise((4, 4), 6, (3, 3)))
    Plan("diagonal:6").check(depthwise((4, 4), 6, (3, 3)))
