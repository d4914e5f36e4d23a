"""Loads a model by file or by the name of an application."""

from __future__ import annotations

import difflib
import json
import re
import zipfile
from pathlib import Path

import keras

from keras_diagwise._terminal import short
from keras_diagwise.version import release

MAX_LETTERS = 300
"""Longest message of Keras that an error quotes."""

EXAMPLES = ("MobileNetV2", "EfficientNetB0")


def load(
    name: str | Path, image_size: int | None = None, weights: str | None = None
) -> keras.Model:
    """The model in a `.keras` file, or one of `keras.applications`.

    Args:
        name: path of the file, or the application's name.
        image_size: pixels along each side of the application's images; `None` is
            its own default.
        weights: the application's `weights`; `None` is random.

    Raises:
        ValueError: if there is no such file or application, the file holds no model,
            or the application does not support that image size.
    """
    if str(name).endswith(".keras"):
        if image_size is not None:
            raise ValueError(
                "`image_size` must be left out for a file, whose model has its own. "
                f"Received: image_size={image_size}, model={str(name)!r}"
            )
        return from_file(Path(name))
    if str(name) not in application_names():
        known = application_names()
        alike = difflib.get_close_matches(str(name), known, cutoff=0.4)
        raise ValueError(
            "`model` must be a .keras file, as model.save('model.keras') writes it, or "
            "the name of a model of keras.applications, such as "
            f"{', '.join(alike or EXAMPLES)}. Received: model={str(name)!r}"
        )
    builder = getattr(keras.applications, str(name))
    if image_size is None:
        return builder(weights=weights)
    try:
        shape = (image_size, image_size, 3)
        return builder(weights=weights, input_shape=shape, include_top=True)
    except ValueError as error:
        raise ValueError(
            f"`image_size` must suit {name}. Received: image_size={image_size}. {error}"
        ) from error


def from_file(path: Path) -> keras.Model:
    """The model in a file.

    Raises:
        ValueError: if there is no such file, or it holds no loadable model.
    """
    if not path.is_file():
        raise ValueError(
            f"`model` must name a file that exists. Received: model={str(path)!r}"
        )
    if not zipfile.is_zipfile(path):  # Keras would report it as missing
        raise ValueError(
            "`model` must be a file that keras.models.load_model can load, but is not "
            "a zip archive: it is damaged, or of another format. Save the model again. "
            f"Received: model={str(path)!r}"
        )
    try:
        model = keras.models.load_model(path)
    except Exception as error:  # a damaged file can fail in any way
        said = " ".join(str(error).split())
        missing = re.search(r"Could not locate (class|function) '[^']*'", said)
        if missing:
            raise ValueError(
                "Classes and functions of your own must be registered before a file is "
                "loaded, with @keras.saving.register_keras_serializable() in a module "
                "that is imported first; on the command line, with --import MODULE. "
                f"Received: model={str(path)!r}. {missing[0]}"
            ) from error
        text = short(f"{type(error).__name__}: {said}", MAX_LETTERS)
        saved_by = version_in(path)
        if release(saved_by) > release(keras.__version__):
            raise ValueError(
                f"`model` was saved by Keras {saved_by}, which Keras "
                f"{keras.__version__} can't read: pip install 'keras>={saved_by}'. "
                f"Received: model={str(path)!r}. {text}"
            ) from error
        raise ValueError(
            "`model` must be a file that keras.models.load_model can load. "
            f"Received: model={str(path)!r}. {text}"
        ) from error
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a file that holds a model. "
            f"Received: model={str(path)!r}, which holds a {type(model).__name__}"
        )
    return model


def version_in(path: Path) -> str:
    """The version of Keras that saved a file; empty if unknown."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = json.loads(archive.read("metadata.json"))["keras_version"]
    except Exception:  # a damaged file can fail in any way
        return ""
    return found if isinstance(found, str) else ""


def application_names() -> list[str]:
    """Names of the models of `keras.applications`."""
    found = vars(keras.applications).items()
    return sorted(n for n, each in found if callable(each) and n[0].isupper())
