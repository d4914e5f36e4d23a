"""What an algorithm is: a way to compute the three passes of a convolution."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from keras_diagwise.problem import Problem

Tensor = Any


class Work(NamedTuple):
    """What a pass takes.

    Attributes:
        flops: floating point operations, of which some may be useless.
        bytes: what must be moved at least.
        operations: how many operations the backend is given to compile or launch.
    """

    flops: int
    bytes: int
    operations: int


class Device(NamedTuple):
    """A GPU, so far as a time can be predicted from it.

    Attributes:
        bytes_per_second: that a copy reads and writes together, as measured.
        multiprocessors: how many it has.
        capability: its compute capability, as `(9, 0)`.
    """

    bytes_per_second: float
    multiprocessors: int
    capability: tuple[int, int]


def check_lowering(lowering: str, lowerings: Sequence[str]) -> None:
    """Checks that an algorithm's lowering is one that it has.

    Raises:
        ValueError: if it is not.
    """
    if lowering not in lowerings:
        raise ValueError(
            f"`lowering` must be one of {', '.join(lowerings)}. "
            f"Received: lowering={lowering!r}"
        )


@dataclasses.dataclass(frozen=True)
class Algorithm(abc.ABC):
    """A way to compute the passes, with its parameters as fields.

    Every algorithm takes any problem that its `refusal` does not name, and each
    of its passes gives what the same pass of `native` gives, up to rounding. In
    all of them `inputs` has the shape `problem.input_shape()`, `kernel`
    `problem.kernel_shape`, and `output_gradient` `problem.output_shape()`; the
    batch is the tensors' own, which the problem may not know.
    """

    name: ClassVar[str]
    revision: ClassVar[int]
    """Raised when the numbers or the speed of the algorithm change, so that
    decisions measured before are not taken for decisions about it."""
    is_kernel: ClassVar[bool] = False
    """Whether it is a program of its own for one device of one kind, which no compiler
    looks into and no transformation can take apart."""

    @abc.abstractmethod
    def forward(self, problem: Problem, inputs: Tensor, kernel: Tensor) -> Tensor:
        """The outputs."""

    @abc.abstractmethod
    def input_gradient(
        self, problem: Problem, kernel: Tensor, output_gradient: Tensor
    ) -> Tensor:
        """The gradient with respect to the inputs."""

    @abc.abstractmethod
    def kernel_gradient(
        self, problem: Problem, inputs: Tensor, output_gradient: Tensor
    ) -> Tensor:
        """The gradient with respect to the kernel."""

    def refusal(self, problem: Problem) -> str | None:
        """Why the algorithm can't compute `problem`, or `None` if it can."""
        return None

    @classmethod
    def is_for(cls, device_kind: str) -> bool:
        """Whether there are devices of a kind, `"cpu"` or `"gpu"`, that it runs on."""
        return True

    def redundancy(self, compiler_mode: str) -> str | None:
        """Why the algorithm is the same as another in a compiler mode, or `None`."""
        return None

    def check(self, problem: Problem) -> None:
        """Checks the algorithm's parameters against `problem`.

        Raises:
            ValueError: if a parameter does not fit, whatever the device.
        """

    @property
    def family(self) -> str:
        """What candidates that behave alike have in common."""
        return self.name

    def work(self, problem: Problem) -> Work:
        """What each of the passes takes, so far as it can be told beforehand."""
        return Work(problem.flops, problem.least_bytes, 1)

    def predicted_seconds(
        self, problem: Problem, pass_name: str, device: Device
    ) -> float | None:
        """The seconds that a pass will take, by what is known of its program, or `None`
        where that can't be told. The problem's batch is known."""
        return None

    def compile(self, problem: Problem, pass_name: str) -> None:
        """Compiles programs of the algorithm's own, so that the first call of a pass
        finds them. Called in any thread, or not at all."""

    @classmethod
    @abc.abstractmethod
    def parse(cls, parameters: list[str]) -> Algorithm:
        """The algorithm from the words that follow its name, as in
        `"diagonal:32:split"`.

        Raises:
            ValueError: if the words are not parameters of it.
        """

    @classmethod
    @abc.abstractmethod
    def candidates(cls, problem: Problem, pass_name: str) -> Iterator[Algorithm]:
        """The instances that are worth measuring for a pass of `problem`."""

    def __str__(self) -> str:
        return self.name
