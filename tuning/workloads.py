"""The problems that are measured: those of `keras.applications`, and a grid
around them."""

from __future__ import annotations

import keras

from keras_diagwise.layers.depthwise_conv import problem_of
from keras_diagwise.problem import Problem


def depthwise_problems(model: keras.Model, batch: int) -> list[Problem]:
    """The depthwise problems of a built model, each once, in its order."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            problem = problem_of(layer, (batch, *layer.input.shape[1:]))
            found[problem] = None
    return list(found)


def application(name: str, image_size: int) -> keras.Model:
    """A model of `keras.applications` with random weights."""
    return getattr(keras.applications, name)(
        input_shape=(image_size, image_size, 3), weights=None, classes=10
    )


APPLICATIONS = (
    ("MobileNetV2", 96, 16),
    ("MobileNetV2", 224, 16),
    ("MobileNetV2", 96, 1),
    ("MobileNet", 96, 16),
    ("MobileNetV3Small", 96, 16),
    ("EfficientNetB0", 96, 16),
)
"""Model, image size and batch of the models measured whole."""


def square(size, channels, kernel, **fields) -> Problem:
    values = {
        "batch": 16,
        "spatial_shape": (size, size),
        "groups": channels,
        "channels_per_group": 1,
        "filters_per_group": 1,
        "kernel_size": (kernel, kernel),
        "strides": (1, 1),
        "padding": "same",
        "dilation_rate": (1, 1),
        "data_format": "channels_last",
        "dtype": "float32",
        **fields,
    }
    return Problem(**values)


def line(steps, channels, kernel, **fields) -> Problem:
    one = (1,)
    return square(
        steps,
        channels,
        kernel,
        spatial_shape=(steps,),
        kernel_size=(kernel,),
        **{"strides": one, "dilation_rate": one, **fields},
    )


def grid() -> list[Problem]:
    """Kinds of problem that the models do not have, so that a planner that asks
    for the nearest finds one."""
    size, channels = 28, 128
    problems = [
        square(size, channels, kernel, strides=(stride, stride), padding=padding)
        for kernel in (2, 3, 4, 5, 7, 9)
        for stride in (1, 2)
        for padding in ("same", "valid")
    ]
    for kernel in (3, 5):
        problems += [
            square(size, channels, kernel, dilation_rate=(2, 2)),
            square(size, channels // 2, kernel, filters_per_group=2),
            square(size, channels, kernel, data_format="channels_first"),
            square(size, channels, kernel, dtype="bfloat16"),
            square(size, channels, kernel, dtype="float16"),
            square(size, channels, kernel, dtype="bfloat16", strides=(2, 2)),
            square(size, channels, kernel, dtype="float16", strides=(2, 2)),
        ]
    problems.append(square(size, channels, 3, dilation_rate=(4, 4)))
    problems += [square(7, 768, kernel) for kernel in (3, 5, 7)]
    problems += [
        line(1024, 128, kernel, padding=padding)
        for kernel in (3, 4, 5, 7, 9, 15, 31)
        for padding in ("same", "valid")
    ]
    problems.append(line(1024, 128, 3, strides=(2,)))
    return problems


def shipped_problems() -> list[Problem]:
    """What the shipped decisions are measured on: models first, then the grid."""
    found = {}
    for name, image_size, batch in APPLICATIONS:
        for problem in depthwise_problems(application(name, image_size), batch):
            found[problem] = None
    for problem in grid():
        found[problem] = None
    return list(found)
