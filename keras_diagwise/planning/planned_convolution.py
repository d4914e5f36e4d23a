"""A problem with its plan: the unit that a backend differentiates."""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
from collections.abc import Callable
from typing import Any

from keras_diagwise import backends
from keras_diagwise.algorithms import Algorithm, Direct, Native
from keras_diagwise.plan import NATIVE, Plan, standardize_plan
from keras_diagwise.problem import PASSES, Problem

Tensor = Any

MAX_NAMED = 4096


@dataclasses.dataclass(frozen=True)
class PlannedConvolution:
    """A problem and the plan that computes it.

    Attributes:
        problem: the problem.
        plan: the plan.
        is_of_this_device: whether the plan was chosen for this device, rather than
            given by the user.
    """

    problem: Problem
    plan: Plan
    is_of_this_device: bool = False

    def compute(self, pass_name: str, left: Tensor, right: Tensor) -> Tensor:
        """Computes a pass by its algorithm: `forward(inputs, kernel)`,
        `input_gradient(kernel, output_gradient)` or `kernel_gradient(inputs,
        output_gradient)`."""
        return getattr(self.algorithm(pass_name), pass_name)(self.problem, left, right)

    def algorithm(self, pass_name: str) -> Algorithm:
        """The plan's algorithm for a pass, or `native` where it can't compute the
        problem, or `direct` where native can't either."""
        return self._algorithms[pass_name]

    @functools.cached_property
    def _algorithms(self) -> dict[str, Algorithm]:
        """Cached, since every eager call asks for it."""
        return {name: self._able(self.plan[name]) for name in PASSES}

    def _able(self, algorithm: Algorithm) -> Algorithm:
        for each in (algorithm, Native(), Direct()):
            if each.refusal(self.problem) is None:
                return each
        return Native()

    def is_native(self, pass_name: str) -> bool:
        """Whether a pass runs stock's own operation."""
        return isinstance(self.algorithm(pass_name), Native)

    def is_kernel(self, pass_name: str) -> bool:
        """Whether a pass runs by a kernel for one kind of device."""
        return self.algorithm(pass_name).is_kernel

    @property
    def without_kernels(self) -> PlannedConvolution:
        """The convolution with `native` in place of kernels."""
        names = {
            name: "native" if self.plan[name].is_kernel else getattr(self.plan, name)
            for name in PASSES
        }
        return dataclasses.replace(self, plan=Plan(**names))

    @property
    def effective_plan(self) -> Plan:
        """The plan with fallbacks in place of what can't compute the problem."""
        return Plan(**{name: str(self.algorithm(name)) for name in PASSES})

    @property
    def to_export(self) -> PlannedConvolution:
        """The convolution of an exported artefact, which may run on other devices."""
        if self.is_of_this_device:
            return self.by_stock
        names = {name: str(self.plan[name].to_export or "native") for name in PASSES}
        return dataclasses.replace(self, plan=Plan(**names))

    @property
    def by_stock(self) -> PlannedConvolution:
        """The convolution by stock's own operation."""
        return PlannedConvolution(self.problem, NATIVE)

    @property
    def name_in_trace(self) -> str:
        """The text that names it to the operator, which is then defined, see
        `operator_in_trace`. It includes the revisions of the algorithms, since a
        compiler caches its output on disk."""
        operator_in_trace()
        return json.dumps(
            {
                "problem": self.problem.to_dict(),
                "plan": self.plan.to_config(),
                "is_of_this_device": self.is_of_this_device,
                "revisions": [self.plan[name].revision for name in PASSES],
            },
            sort_keys=True,
        )

    def call_in_trace(self, pass_name: str) -> Callable[..., Tensor]:
        """A pass as a function of its operands, for a tracer of Python code."""
        run, name = operator_in_trace(), self.name_in_trace
        return lambda *operands: run(*operands, pass_name, name)

    @staticmethod
    @functools.lru_cache(maxsize=MAX_NAMED)
    def named(name: str) -> PlannedConvolution:
        """The convolution with a `name_in_trace`."""
        values = json.loads(name)
        plan = standardize_plan(values["plan"])
        assert isinstance(plan, Plan)
        problem = Problem.from_dict(values["problem"])
        return PlannedConvolution(problem, plan, values["is_of_this_device"])

    def result_shape(self, pass_name: str, left_shape, right_shape) -> tuple:
        """The shape of a pass's result, from those of its operands."""
        if pass_name == "forward":
            return self.problem.output_shape(left_shape[0])
        if pass_name == "input_gradient":
            return self.problem.input_shape(right_shape[0])
        return self.problem.kernel_shape


DEFINING = threading.Lock()


def operator_in_trace() -> Callable:
    """The operator that a graph of Python code contains, see `backends`."""
    with DEFINING:  # else two threads might both define it
        return defined_operator()


@functools.cache
def defined_operator() -> Callable:
    return backends.active.python_trace.define_operator(PlannedConvolution.named)
