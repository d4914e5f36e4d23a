"""Measured problems: those of `keras.applications`, and others around them.

python -m tuning.workloads     (reads those of the applications again, in minutes)
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path

import keras

from keras_diagwise.environment import Environment
from keras_diagwise.layers import base
from keras_diagwise.planning.dispatch import why_not_served
from keras_diagwise.problem import Problem

GROUPED = Path(__file__).with_name("applications.json")
"""Every depthwise and grouped convolution of `keras.applications`, at its model's own
resolution and batch 1, by model."""

MODELS = (
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large"),
    *(f"EfficientNetB{i}" for i in range(8)),
    *(f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")),
    *("Xception", "NASNetMobile", "NASNetLarge"),
    *(f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge")),
)


def problems_posed(model: keras.Model, batch: int = 1) -> list[Problem]:
    """Problems of a built model of stock layers, each once, in the model's order."""
    found: dict[Problem, None] = {}
    for layer in layers_of(model):
        if type(layer) in base.STOCK_TO_OURS:
            shape = (batch, *layer.input.shape[1:])
            found.update(dict.fromkeys(base.problems_of(layer, shape).values()))
    return list(found)


def grouped_problems(model: keras.Model, batch: int = 1) -> list[Problem]:
    """Depthwise and grouped problems of a built model."""
    return [each for each in problems_posed(model, batch) if not each.is_dense]


def dense_problems(model: keras.Model, batch: int = 1) -> list[Problem]:
    """Dense problems of a built model, including those of separable layers."""
    return [each for each in problems_posed(model, batch) if each.is_dense]


def layers_of(model):
    """Layers of a model and of its nested models."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)
        else:
            yield layer


def read_applications() -> dict[str, list[Problem]]:
    """Depthwise and grouped problems of each application."""
    keras.initializers.VarianceScaling.__call__ = keras.initializers.Zeros.__call__
    keras.initializers.TruncatedNormal.__call__ = keras.initializers.Zeros.__call__
    found = {}
    for name in MODELS:
        of_any_size = name.startswith("MobileNetV3")
        size = {"input_shape": (224, 224, 3)} if of_any_size else {}
        model = getattr(keras.applications, name)(weights=None, **size)
        found[name] = grouped_problems(model)
        print(name, len(found[name]), flush=True)
        keras.utils.clear_session()
    return found


def application(name: str, image_size: int) -> keras.Model:
    """A model of `keras.applications` with random weights."""
    return getattr(keras.applications, name)(
        input_shape=(image_size, image_size, 3), weights=None, classes=10
    )


def trainable(name: str, image_size: int, **compile_arguments) -> keras.Model:
    """A compiled application; nothing is traced yet."""
    keras.utils.set_random_seed(0)
    model = application(name, image_size)
    model.compile(
        keras.optimizers.SGD(0.01),
        "sparse_categorical_crossentropy",
        **compile_arguments,
    )
    return model


APPLICATIONS = (
    ("MobileNetV2", 96, 16),
    ("MobileNetV2", 224, 16),
    ("MobileNetV2", 96, 1),
    ("MobileNet", 96, 16),
    ("MobileNetV3Small", 96, 16),
    ("EfficientNetB0", 96, 16),
)
"""Name, image size and batch of the models measured whole."""


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
    """Kinds of problem that the models lack, so that the planner finds a neighbour."""
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
    problems += [
        square(size, channels, kernel, batch=2) for kernel in (11, 13, 15, 19, 23)
    ]
    problems += large_kernels()
    problems += [square(7, 768, kernel) for kernel in (3, 5, 7)]
    problems += [
        line(1024, 128, kernel, padding=padding)
        for kernel in (3, 4, 5, 7, 9, 15, 31)
        for padding in ("same", "valid")
    ]
    problems.append(line(1024, 128, 3, strides=(2,)))
    return problems


def dense(size, channels, filters, kernel, **fields) -> Problem:
    single = square(size, 1, kernel, **fields)
    return dataclasses.replace(
        single, channels_per_group=channels, filters_per_group=filters
    )


def dense_grid() -> list[Problem]:
    """A few dense problems of each kind besides the models', from large images with few
    channels to small ones with many."""
    down = {"strides": (2, 2)}
    valid = {"padding": "valid"}
    problems = []
    for size, channels in ((56, 64), (28, 128), (14, 256), (7, 512)):
        problems += [
            dense(size, channels, channels, 3),
            dense(size, channels // 2, channels, 3, **down),
            dense(size, channels, 2 * channels, 1, **down),
            dense(size + 2, channels // 2, channels, 3, **valid),
        ]
    for size, channels in ((48, 24), (24, 48), (12, 64)):
        problems.append(dense(size, channels, 4 * channels, 3))
        problems.append(dense(2 * size, channels, 4 * channels, 3, **down))
    for size in (96, 224):
        problems += [
            dense(size, 3, 32, 3, **down),
            dense(size + 1, 3, 32, 3, **down, **valid),
            dense(size + 6, 3, 64, 7, **down, **valid),
            dense(size, 3, 32, 3),
        ]
    for channels in (32, 96):
        problems.append(dense(28, channels, channels, 5))
        problems.append(dense(14, channels, channels, 7))
        for kernel in ((1, 7), (7, 1), (1, 3), (3, 1)):
            fields = {"kernel_size": kernel}
            problems.append(dense(14, 2 * channels, 2 * channels, 1, **fields))
    for kernel in (1, 3, 5):
        for padding in ("same", "valid"):
            wide = line(512, 1, kernel, padding=padding)
            problems.append(
                dataclasses.replace(wide, channels_per_group=64, filters_per_group=128)
            )
    return problems


def dense_layers() -> list[Problem]:
    """Dense layers over pixels and over the steps of sequences, as in ConvNeXt and in
    transformers: widening fourfold, and back."""
    images = ((56, 96), (28, 192), (14, 384), (7, 768))
    small = ((24, 96), (12, 192), (6, 384), (3, 768))
    sequences = ((196, 192), (196, 384), (196, 768), (128, 256), (512, 512))
    shapes = [((16, size, size), n) for size, n in (*images, *small)]
    shapes += [((16, steps), n) for steps, n in sequences]
    return [
        Problem.of_dense_layer((*shape, channels), (channels, units))
        for shape, n in shapes
        for channels, units in ((n, 4 * n), (4 * n, n))
    ]


def model_problems() -> list[Problem]:
    """Problems of the models measured whole, each once: depthwise and grouped ones
    first, then dense."""
    models = [
        (application(name, image_size), batch)
        for name, image_size, batch in APPLICATIONS
    ]
    found = (
        problem
        for problems in (grouped_problems, dense_problems)
        for model, batch in models
        for problem in problems(model, batch)
    )
    return list(dict.fromkeys(found))


def shipped_problems(environment: Environment) -> list[Problem]:
    """Problems of an environment's shipped decisions: models first, then the grids."""
    problems = [*model_problems(), *grid(), *dense_grid(), *dense_layers()]
    problems = list(dict.fromkeys(problems))
    return [each for each in problems if why_not_served(environment, each) is None]


def in_batch(problem: Problem, most_batch: int, most_elements: int) -> Problem:
    """The problem at the largest power-of-two batch within both limits, at least 1."""
    per_image = math.prod(problem.input_shape()[1:])
    fitting = max(1, most_elements // per_image)
    batch = min(most_batch, 2 ** (fitting.bit_length() - 1))
    return dataclasses.replace(problem, batch=batch)


WHOLE_MODELS = (
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large"),
    *("EfficientNetB0", "EfficientNetV2B0", "Xception", "NASNetMobile", "ConvNeXtTiny"),
)

DENSE_MODELS = ("ResNet50", "DenseNet121")
"""Models of dense convolutions, measured whole where these have an algorithm."""


def applications(names: Iterable[str] = MODELS) -> list[Problem]:
    """Problems of `keras.applications` at batch 1, each once."""
    found = json.loads(GROUPED.read_text())
    problems = (Problem.from_dict(each) for name in names for each in found[name])
    return list(dict.fromkeys(problems))


def large_kernels() -> list[Problem]:
    """Large-kernel problems as in RepLKNet (arXiv 2203.06717)."""
    shapes = ((56, 128, 31), (28, 256, 29), (14, 512, 27), (7, 1024, 13))
    small = ((56, 128, 5), (28, 256, 9), (14, 512, 13))
    return [square(*each, batch=1) for each in (*shapes, *small)]


def sequences() -> list[Problem]:
    """One-dimensional problems: audio (Conformer, wav2vec-like), and RWKV-like models,
    whose tokens see their predecessors."""
    shapes = ((1024, 256, 31), (512, 512, 15), (4096, 64, 9), (1024, 768, 4))
    return [line(*each, batch=1) for each in (*shapes, (2048, 1024, 3))]


def headlines() -> list[Problem]:
    """Problems that a GPU is judged by: batches of 64 and 32, tensors larger than its
    caches."""
    batch = {"batch": 64}
    return [
        square(56, 144, 3, **batch),
        square(112, 32, 3, strides=(2, 2), **batch),
        square(14, 576, 3, **batch),
        square(28, 240, 5, **batch),
        square(56, 144, 5, strides=(2, 2), **batch),
        square(56, 96, 7, batch=32),
        square(56, 144, 3, data_format="channels_first", **batch),
        line(4096, 768, 4, batch=32),
    ]


LARGER_THAN_CACHES = 64 * 2**20
"""Least bytes past which a problem's tensors can't stay in a CPU's caches."""


def larger_than_caches() -> list[Problem]:
    """A problem for each kernel, stride and padding of the whole models, at the
    smallest batch at which its tensors exceed a CPU's caches."""
    kinds = {}
    for problem in applications(WHOLE_MODELS):
        kind = problem.kernel_size, problem.strides, problem.padding
        largest = kinds.setdefault(kind, problem)
        if problem.least_bytes > largest.least_bytes:
            kinds[kind] = problem
    return [
        dataclasses.replace(each, batch=-(-LARGER_THAN_CACHES // each.least_bytes))
        for each in kinds.values()
    ]


SETS = (
    *("models", "applications", "large_kernels", "sequences", "single", "large"),
    *("small", "headlines", "dense"),
)
DENSE_SET = 80
"""Number of problems in the dense set."""


def problems_of(name: str, most_batch: int = 16, most_elements: int = 2**22):
    """Problems of a set.

    Args:
        name: one of `SETS`: problems of the models measured whole or of all
            applications, large kernels, one-dimensional ones, the MobileNets' at
            batch 1, those larger than caches, a few of all for a rehearsal, those that
            a GPU is judged by, or dense ones of several models.
        most_batch: largest batch.
        most_elements: largest number of elements of a problem's input.
    """
    if name == "single":
        return applications(MODELS[:4])
    if name == "large":
        return larger_than_caches()
    if name == "small":
        some = [*applications()[:4:2], large_kernels()[-1], sequences()[0]]
        return [in_batch(each, 2, 2**18) for each in some]
    if name == "headlines":
        return headlines()
    if name == "dense":
        return dense_of_models(most_batch)
    found = {
        "models": functools.partial(applications, WHOLE_MODELS),
        "applications": applications,
        "large_kernels": large_kernels,
        "sequences": sequences,
    }[name]()
    return [in_batch(each, most_batch, most_elements) for each in found]


def dense_of_models(batch: int) -> list[Problem]:
    """Dense problems of models with and without depthwise layers, evenly sampled."""
    names = ("MobileNetV2", "EfficientNetB0", "EfficientNetV2B0", *DENSE_MODELS)
    found = itertools.chain.from_iterable(
        dense_problems(application(name, 96), batch) for name in names
    )
    problems = list(dict.fromkeys(found))
    return [problems[i * len(problems) // DENSE_SET] for i in range(DENSE_SET)]


def main() -> None:
    found = {
        name: [each.to_dict() for each in problems]
        for name, problems in read_applications().items()
    }
    lines = ",\n".join(
        f"{json.dumps(name)}: [\n"
        + ",\n".join(json.dumps(each) for each in problems)
        + "\n]"
        for name, problems in found.items()
    )
    GROUPED.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
