"""Images of a folder with a subfolder for each class."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_diagwise_cli.demo.images import Images, in_parts, needed, resized
from keras_diagwise_cli.errors import UserError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_IMAGES = 2000


def from_folder(folder: Path, size: int, seed: int) -> Images:
    """Images of a folder with a subfolder for each class.

    Raises:
        UserError: if there is no such folder, it has fewer than two classes, a class
            has fewer than two images, or an image can't be read.
    """
    files = limited(files_of_classes(folder))
    labels = np.repeat(np.arange(len(files)), [len(each) for each in files.values()])
    pixels = read_all([path for each in files.values() for path in each], size)
    source = f"{len(labels):,} images of {folder}"
    return in_parts(source, list(files), pixels, labels, seed)


def files_of_classes(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class."""
    expected = "It must contain a subfolder of images for each class."
    if not folder.is_dir():
        raise UserError(f"--images: there is no folder {str(folder)!r}. {expected}")
    found = {
        subfolder.name: sorted(
            path for path in subfolder.rglob("*") if path.suffix.lower() in SUFFIXES
        )
        for subfolder in sorted(path for path in folder.iterdir() if path.is_dir())
    }
    files = {name: each for name, each in found.items() if each}
    if not files:
        raise UserError(
            f"--images: no subfolder of {str(folder)!r} contains an image "
            f"({', '.join(SUFFIXES)}). {expected}"
        )
    if len(files) < 2:
        raise UserError(
            f"--images: {str(folder)!r} has images of only one class "
            f"({next(iter(files))!r}). {expected} Give at least two."
        )
    lonely = [name for name, each in files.items() if len(each) < 2]
    if lonely:
        raise UserError(
            f"--images: {str(folder)!r} has only one image of {', '.join(lonely)}. "
            "Give at least two: one to train on, one held out."
        )
    return files


def limited(files: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """At most `MAX_IMAGES` files in total, spread evenly over each class."""
    most = max(2, MAX_IMAGES // len(files))
    return {
        name: [each[i * len(each) // most] for i in range(most)]
        if len(each) > most
        else each
        for name, each in files.items()
    }


def read_all(paths: Sequence[Path], size: int) -> np.ndarray:
    """The images in some files, as `(images, size, size, 3)`."""
    read = functools.partial(read_or_none, size=size)
    images = [read(path) for path in paths]
    unreadable = [
        str(p) for p, image in zip(paths, images, strict=True) if image is None
    ]
    if unreadable:
        more = f" and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
        raise UserError(
            f"--images: can't read {', '.join(unreadable[:3])}{more} as an image. "
            "Remove or replace each such file."
        )
    return np.stack([image for image in images if image is not None])


def read_or_none(path: Path, size: int) -> np.ndarray | None:
    """The image in a file, or `None` if it can't be read."""
    pillow = needed("PIL.Image", "pillow")
    try:
        with pillow.open(path) as image:
            return resized(np.asarray(image.convert("RGB")), size)
    except (OSError, ValueError, SyntaxError):
        return None
