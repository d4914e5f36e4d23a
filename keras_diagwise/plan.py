"""The plan: an algorithm for each of the three passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from keras_diagwise import algorithms
from keras_diagwise.algorithms import Algorithm
from keras_diagwise.problem import PASSES, Problem

AUTO = "auto"


@dataclasses.dataclass(frozen=True)
class Plan:
    """The algorithm of each pass.

    Args:
        forward: an algorithm with its parameters after colons: `"native"`,
            `"direct"`, `"diagonal"`, `"diagonal:32"`, `"diagonal:32:split"`.
        input_gradient: likewise, for the gradient with respect to the inputs.
        kernel_gradient: likewise, for the gradient with respect to the kernel.

    Raises:
        ValueError: if one of them names no algorithm.

    Example:

    >>> Plan(forward="direct", kernel_gradient="diagonal:8:split")
    Plan(forward='direct', input_gradient='native', kernel_gradient='diagonal:8:split')
    """

    forward: str = "native"
    input_gradient: str = "native"
    kernel_gradient: str = "native"

    def __post_init__(self):
        parsed = {}
        for name in PASSES:
            text = getattr(self, name)
            if isinstance(text, Algorithm):
                text = str(text)
            if not isinstance(text, str):
                raise ValueError(
                    f"`{name}` of a plan must be the name of an algorithm. "
                    f"Received: {name}={text!r}"
                )
            parsed[name] = algorithms.parse(text)
            object.__setattr__(self, name, str(parsed[name]))
        object.__setattr__(self, "_algorithms", parsed)

    def __getitem__(self, pass_name: str) -> Algorithm:
        """The algorithm of a pass."""
        return self._algorithms[pass_name]  # type: ignore[attr-defined]

    @property
    def is_native(self) -> bool:
        """Whether every pass is the stock one."""
        return all(getattr(self, name) == "native" for name in PASSES)

    def has(self, algorithm: type[Algorithm]) -> bool:
        """Whether any pass uses this algorithm, with any parameters."""
        return any(isinstance(self[name], algorithm) for name in PASSES)

    def check(self, problem: Problem) -> None:
        """Checks the parameters of every pass against `problem`.

        Raises:
            ValueError: if a partition size does not fit its channels.
        """
        for name in PASSES:
            self[name].check(problem)

    def to_config(self) -> str | dict[str, str]:
        """The plan as JSON types: one text if all passes are alike."""
        texts = {name: getattr(self, name) for name in PASSES}
        return self.forward if len(set(texts.values())) == 1 else texts

    def __str__(self) -> str:
        config = self.to_config()
        return config if isinstance(config, str) else ", ".join(config.values())


NATIVE = Plan()


def standardize_plan(plan: str | Mapping[str, str] | Plan) -> str | Plan:
    """`plan` as a `Plan`, or `"auto"`.

    Args:
        plan: `"auto"`, the name of an algorithm for all passes, a mapping from
            passes to names, or a `Plan`.

    Raises:
        ValueError: if it is none of these.
    """
    if isinstance(plan, Plan) or plan == AUTO:
        return plan
    if isinstance(plan, str):
        try:
            return Plan(plan, plan, plan)
        except ValueError as error:
            raise ValueError(
                f"`plan` must be 'auto', an algorithm or a Plan. {error}"
            ) from None
    if isinstance(plan, Mapping) and set(plan) <= set(PASSES):
        return Plan(**plan)
    raise ValueError(
        "`plan` must be 'auto', the name of an algorithm such as 'direct' or "
        f"'diagonal:32', or a keras_diagwise.Plan. Received: plan={plan!r}"
    )


def is_unknown(plan) -> bool:
    """Whether a plan, as a layer's config holds it, names an algorithm or a pass that
    this version does not have."""
    names = plan.values() if isinstance(plan, Mapping) else [plan]
    if isinstance(plan, Mapping) and not set(plan) <= set(PASSES):
        return True
    return any(
        isinstance(name, str) and name != AUTO and algorithms.parse_known(name) is None
        for name in names
    )


def plan_to_config(plan: str | Plan) -> str | dict[str, str]:
    """`plan` as a layer's config holds it."""
    return plan if isinstance(plan, str) else plan.to_config()
