"""Steps and layers of plain torch on a CPU, without Keras, channels last.

    python -m tuning.plain_torch

Reads requests as lines of JSON from stdin, as `tuning.worker` does. The modules have
the layers of `keras.applications`, torch's own initialization, and train by the same
optimizer on the same batch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from tuning.answers import answer_requests

CLASSES = 10

MOBILE_NET = [
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *[(512, 1)] * 5,
    *((1024, 2), (1024, 1)),
]
"""Filters and stride of each block of MobileNet (arXiv 1704.04861, table 1)."""

MOBILE_NET_V2 = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
"""Expansion, filters, repetitions and first stride of each stage of MobileNetV2
(arXiv 1801.04381, table 2)."""


def convolution(channels, filters, kernel, stride=1, groups=1, activates=True):
    """A convolution, its normalization and, if asked, the activation."""
    pad = (kernel - 1) // 2
    layers = [
        nn.Conv2d(channels, filters, kernel, stride, pad, groups=groups, bias=False),
        nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01),
    ]
    return nn.Sequential(*layers, *[nn.ReLU6(inplace=True)] * activates)


def mobile_net() -> nn.Sequential:
    """MobileNet."""
    layers, channels = [convolution(3, 32, 3, 2)], 32
    for filters, stride in MOBILE_NET:
        layers += [
            convolution(channels, channels, 3, stride, groups=channels),
            convolution(channels, filters, 1),
        ]
        channels = filters
    return nn.Sequential(*layers, *head(channels))


class InvertedResidual(nn.Module):
    """A block of MobileNetV2."""

    def __init__(self, channels: int, filters: int, expansion: int, stride: int):
        super().__init__()
        wide = expansion * channels
        layers = [convolution(channels, wide, 1)] if expansion > 1 else []
        self.adds = stride == 1 and channels == filters
        self.layers = nn.Sequential(
            *layers,
            convolution(wide, wide, 3, stride, groups=wide),
            convolution(wide, filters, 1, activates=False),
        )

    def forward(self, inputs):
        outputs = self.layers(inputs)
        return inputs + outputs if self.adds else outputs


def mobile_net_v2() -> nn.Sequential:
    """MobileNetV2."""
    layers, channels = [convolution(3, 32, 3, 2)], 32
    for expansion, filters, repetitions, stride in MOBILE_NET_V2:
        for index in range(repetitions):
            first = 1 if index else stride
            layers.append(InvertedResidual(channels, filters, expansion, first))
            channels = filters
    return nn.Sequential(*layers, convolution(channels, 1280, 1), *head(1280))


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]


MODULES = {"MobileNet": mobile_net, "MobileNetV2": mobile_net_v2}


class Worker:
    """Answers requests, each by one method."""

    def modules(self) -> list[str]:
        return list(MODULES)

    def environment(self) -> dict:
        return {"torch": torch.__version__, "threads": torch.get_num_threads()}

    def build(self, name: str, image_size: int, batch_size: int, converts: bool):
        """Builds a module and runs a first step."""
        assert not converts, "plain torch has no converted module"
        torch.manual_seed(0)
        self._module = MODULES[name]().to(memory_format=torch.channels_last).train()
        self._optimizer = torch.optim.SGD(self._module.parameters(), 0.01)
        generator = np.random.default_rng(0)
        shape = (batch_size, 3, image_size, image_size)
        images = torch.from_numpy(generator.standard_normal(shape, "float32"))
        self._images = images.to(memory_format=torch.channels_last)
        self._labels = torch.from_numpy(generator.integers(0, CLASSES, batch_size))
        self.step()

    def step(self) -> float:
        """Seconds of a training step of the built module."""
        started = time.perf_counter()
        self._optimizer.zero_grad()
        outputs = self._module(self._images)
        loss = nn.functional.cross_entropy(outputs, self._labels)
        loss.backward()
        self._optimizer.step()
        loss.item()
        return time.perf_counter() - started

    def time_layer(self, problem: dict, pass_name: str, seconds: float) -> float:
        """Median seconds of a pass of a depthwise layer, `nn.Conv2d` as it pads.

        Args:
            problem: fields of a `Problem` of rank 2.
            pass_name: one of `PASSES`.
            seconds: time to take.
        """
        run = pass_of_layer(problem, pass_name)
        run()
        taken, until = [], time.perf_counter() + seconds
        while not taken or time.perf_counter() < until:
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
        return statistics.median(taken)


def pass_of_layer(problem: dict, pass_name: str) -> Callable[[], object]:
    """A function that computes a pass of a depthwise layer, channels last."""
    channels, kernel_size = problem["groups"], problem["kernel_size"]
    padding = [(size - 1) // 2 for size in kernel_size]
    layer = nn.Conv2d(
        channels,
        channels * problem["filters_per_group"],
        kernel_size,
        problem["strides"],
        padding if problem["padding"] == "same" else 0,
        groups=channels,
        bias=False,
    ).to(memory_format=torch.channels_last)
    kernel = layer.weight.detach()
    shape = problem["batch"], channels, *problem["spatial_shape"]
    inputs = torch.randn(shape).to(memory_format=torch.channels_last)
    if pass_name == "forward":
        return lambda: layer(inputs.detach())
    outputs = torch.randn_like(layer(inputs))
    wanted = pass_name == "input_gradient", pass_name == "kernel_gradient", False
    settings = layer.stride, layer.padding, layer.dilation, False, [0, 0], channels
    return lambda: torch.ops.aten.convolution_backward(
        outputs, inputs, kernel, None, *settings, wanted
    )


def main() -> None:
    worker = Worker()
    answer_requests(lambda request: getattr(worker, request[0])(*request[1:]))


if __name__ == "__main__":
    main()
