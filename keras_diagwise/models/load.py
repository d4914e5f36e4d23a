"""A model from what a user may name it by."""

from __future__ import annotations

from pathlib import Path

import keras


def load(
    name: str | Path, image_size: int | None = None, weights: str | None = None
) -> keras.Model:
    """The model in a `.keras` file, or one of `keras.applications`.

    Args:
        name: path of the file, or the application's name.
        image_size: pixels along each side of the application's images; `None` is
            its own default.
        weights: of the application; `None` is random.

    Raises:
        ValueError: if there is no such file or application, or an application's
            images can't have that size.
    """
    if str(name).endswith(".keras"):
        if not Path(name).is_file():
            raise ValueError(f"`model` must be a file that is there. Received: {name}")
        return keras.models.load_model(name)
    builder = getattr(keras.applications, str(name), None)
    if not callable(builder):
        raise ValueError(
            "`model` must be a .keras file, or the name of a model of "
            f"keras.applications: {', '.join(application_names())}. Received: {name}"
        )
    if image_size is None:
        return builder(weights=weights)
    try:
        shape = (image_size, image_size, 3)
        return builder(weights=weights, input_shape=shape, include_top=True)
    except ValueError as error:
        raise ValueError(
            f"`image_size` must suit {name}. Received: image_size={image_size}. {error}"
        ) from error


def application_names() -> list[str]:
    """The models of `keras.applications`."""
    found = vars(keras.applications).items()
    return sorted(n for n, each in found if callable(each) and n[0].isupper())
