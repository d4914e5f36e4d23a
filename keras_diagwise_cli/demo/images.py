"""Training and held-out images of the demo: scans of digits, and two photographs."""

from __future__ import annotations

import dataclasses
import importlib
import types
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from keras_diagwise_cli.errors import user_errors

HELD_OUT = 0.15
CROPS = {"training": 400, "held out": 100}
MAX_CROP = 160
"""Limit of a crop's side: a photograph is 427 pixels high, its held-out part 192
wide."""


@dataclasses.dataclass(frozen=True)
class Images:
    """Images in two parts: for training, and held out.

    Attributes:
        source: description of the images.
        classes: name of each class.
        pixels: pixels of each part, `(images, size, size, 3)` in uint8.
        labels: labels of each part, an index into `classes` for each image.
    """

    source: str
    classes: tuple[str, ...]
    pixels: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]

    def batch(self, part: str, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs in [-1, 1] and labels of some images."""
        inputs = self.pixels[part][indices].astype("float32") / 127.5 - 1
        return inputs, self.labels[part][indices]

    def training_batches(
        self, batch_size: int, seed: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Endless batches: all images, reshuffled at each pass."""
        random = np.random.default_rng(seed)
        order = np.empty(0, int)
        while True:
            while len(order) < batch_size:
                more = random.permutation(len(self.labels["training"]))
                order = np.concatenate([order, more])
            chosen, order = order[:batch_size], order[batch_size:]
            yield self.batch("training", chosen)


class Batches:
    """The batches of training images that both models train on, one at a time.

    Args:
        images: the images.
        batch_size: images in a batch.
        seed: seed of their order.

    Attributes:
        current: inputs and labels of the current batch.
    """

    def __init__(self, images: Images, batch_size: int, seed: int):
        self._batches = images.training_batches(batch_size, seed)
        self.advance()

    def advance(self) -> None:
        """Goes on to the next batch."""
        self.current = next(self._batches)


def needed(module: str, package: str) -> types.ModuleType:
    """A module of an optional package.

    Raises:
        UserError: if it can't be imported.
    """
    with user_errors(
        ImportError,
        saying=lambda error: (
            f"The demo's images need {package}, which can't be imported ({error}). "
            "Install it with: pip install 'keras-diagwise[demo]'"
        ),
    ):
        return importlib.import_module(module)


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    """An image in uint8, grey or colour, as `(size, size, 3)`."""
    pillow = needed("PIL.Image", "pillow")
    image = pillow.fromarray(pixels).convert("RGB")
    return np.asarray(image.resize((size, size), pillow.Resampling.BILINEAR))


def split(labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Indices of training and held-out images, stratified by class."""
    random = np.random.default_rng(seed)
    parts: dict[str, list] = {"training": [], "held out": []}
    for label in np.unique(labels):
        indices = random.permutation(np.flatnonzero(labels == label))
        held_out = max(1, round(HELD_OUT * len(indices)))
        parts["held out"].append(indices[:held_out])
        parts["training"].append(indices[held_out:])
    return {name: np.concatenate(each) for name, each in parts.items()}


def in_parts(
    source: str, classes: Sequence[str], pixels: np.ndarray, labels: np.ndarray, seed
) -> Images:
    """Images split into training and held out."""
    parts = split(labels, seed)
    return Images(
        source,
        tuple(classes),
        {name: pixels[indices] for name, indices in parts.items()},
        {name: labels[indices] for name, indices in parts.items()},
    )


def digits(size: int, seed: int) -> Images:
    """scikit-learn's 1,797 scans of handwritten digits, 8×8 and grey."""
    scans = needed("sklearn.datasets", "scikit-learn").load_digits()
    grey = (scans.images * 255 / 16).astype(np.uint8)
    pixels = np.stack([resized(scan, size) for scan in grey])
    source = f"{len(grey):,} scans of handwritten digits"
    return in_parts(source, [str(i) for i in range(10)], pixels, scans.target, seed)


def photographs(size: int, seed: int) -> Images:
    """Crops of scikit-learn's two photographs, labelled by photograph.

    Held-out crops come from the right of each, training crops from the rest, so that
    they share no pixel.
    """
    needed("PIL.Image", "pillow")
    loaded = needed("sklearn.datasets", "scikit-learn").load_sample_images()
    random = np.random.default_rng(seed)
    pixels: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    for part, count in CROPS.items():
        areas = [area_of(part, photograph) for photograph in loaded.images]
        crops = [
            random_crop(area, size, random) for area in areas for _ in range(count)
        ]
        pixels[part] = np.stack(crops)
        labels[part] = np.repeat(np.arange(len(areas)), count)
    classes = tuple(Path(name).stem for name in loaded.filenames)
    source = f"{2 * sum(CROPS.values()):,} crops of two photographs"
    return Images(source, classes, pixels, labels)


def area_of(part: str, photograph: np.ndarray) -> np.ndarray:
    """The part of a photograph that crops of `part` come from."""
    border = int(0.7 * photograph.shape[1])
    return photograph[:, :border] if part == "training" else photograph[:, border:]


def random_crop(area: np.ndarray, size: int, random) -> np.ndarray:
    """A random square of an area, as `(size, size, 3)`."""
    side = min(size, MAX_CROP)
    top = random.integers(area.shape[0] - side + 1)
    left = random.integers(area.shape[1] - side + 1)
    return resized(area[top : top + side, left : left + side], size)
