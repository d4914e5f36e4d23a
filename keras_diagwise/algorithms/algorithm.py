"""The base class of algorithms, which compute the three passes of a convolution."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from keras_diagwise.problem import Problem

Tensor = Any


class Work(NamedTuple):
    """The work of a pass.

    Attributes:
        flops: floating point operations, including useless ones.
        bytes: fewest bytes that must be moved.
        operations: number of operations that the backend must compile or launch.
    """

    flops: int
    bytes: int
    operations: int


class Device(NamedTuple):
    """The properties of a GPU from which times are predicted.

    Attributes:
        bytes_per_second: measured bandwidth of a copy, reads and writes together.
        multiprocessors: number of multiprocessors.
        capability: its compute capability, such as `(9, 0)`.
    """

    bytes_per_second: float
    multiprocessors: int
    capability: tuple[int, int]


def check_lowering(lowering: str, lowerings: Sequence[str]) -> None:
    """Checks that `lowering` is one of an algorithm's `lowerings`.

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

    Every algorithm takes any problem for which `refusal` is `None`, and each of its
    passes returns what that of `native` returns, up to rounding. `inputs` has the
    shape `problem.input_shape()`, `kernel` `problem.kernel_shape`, and
    `output_gradient` `problem.output_shape()`; the batch is that of the tensors, which
    the problem may not know.
    """

    name: ClassVar[str]
    revision: ClassVar[int]
    """1, and increased when the numbers or the speed of the algorithm change, so that
    earlier decisions no longer apply to it."""
    is_kernel: ClassVar[bool] = False
    """Whether it is a custom kernel for one kind of device, opaque to compilers and
    transformations."""

    @property
    def to_export(self) -> Algorithm | None:
        """The algorithm that takes its place in an exported artefact, which may run on
        other devices, or `None` if that is native."""
        return None if self.is_kernel else self

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
        """Whether it runs on any devices of a kind, `"cpu"` or `"gpu"`."""
        return True

    def redundancy(self, compiler_mode: str) -> str | None:
        """Why the algorithm equals another in a compiler mode, or `None`."""
        return None

    def check(self, problem: Problem) -> None:
        """Checks the algorithm's parameters against `problem`.

        Raises:
            ValueError: if a parameter does not fit, whatever the device.
        """

    @property
    def family(self) -> str:
        """The common name of candidates that behave alike."""
        return self.name

    def work(self, problem: Problem) -> Work:
        """The work of each of the passes, as far as known beforehand."""
        return Work(problem.flops, problem.least_bytes, 1)

    def predicted_seconds(
        self, problem: Problem, pass_name: str, device: Device
    ) -> float | None:
        """The predicted seconds of a pass, or `None` if they can't be predicted. The
        problem's batch is known."""
        return None

    def compile(self, problem: Problem, pass_name: str) -> None:
        """Compiles the algorithm's own kernels ahead of a pass's first call. May be
        called in any thread, or not at all."""

    @classmethod
    @abc.abstractmethod
    def parse(cls, parameters: list[str]) -> Algorithm:
        """The algorithm with the parameters that follow its name, as in
        `"diagonal:32:split"`.

        Raises:
            ValueError: if they are not parameters of it.
        """

    @classmethod
    @abc.abstractmethod
    def candidates(cls, problem: Problem, pass_name: str) -> Iterator[Algorithm]:
        """The instances worth measuring for a pass of `problem`."""

    def __str__(self) -> str:
        return self.name
