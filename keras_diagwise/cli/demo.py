"""`keras-diagwise demo`: a real model on real images, stock against converted."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Annotated

import typer

from keras_diagwise.cli.errors import UserError, one_line_errors
from keras_diagwise.cli.import_keras import import_keras
from keras_diagwise.cli.options import Debug
from keras_diagwise.cli.progress import Progress


class Dataset(str, enum.Enum):
    """The images that come with scikit-learn."""

    digits = "digits"
    photographs = "photographs"


class Model(str, enum.Enum):
    """The models of `keras.applications` that the demo knows."""

    MobileNet = "MobileNet"
    MobileNetV2 = "MobileNetV2"
    MobileNetV3Small = "MobileNetV3Small"
    MobileNetV3Large = "MobileNetV3Large"


def demo(
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Train on your images: a folder with a subfolder for each class.",
        ),
    ] = None,
    dataset: Annotated[
        Dataset,
        typer.Option(
            metavar="NAME",
            help="Or on what comes with scikit-learn: digits or photographs.",
        ),
    ] = Dataset.digits,
    model: Annotated[
        Model,
        typer.Option(
            metavar="NAME",
            help="MobileNet, MobileNetV2, MobileNetV3Small or MobileNetV3Large.",
        ),
    ] = Model.MobileNetV2,
    plan: Annotated[
        str,
        typer.Option(
            metavar="PLAN",
            help="'auto', an algorithm such as 'direct', or three with commas between: "
            "of the forward pass, the input's and the kernel's gradient.",
        ),
    ] = "auto",
    image_size: Annotated[
        int,
        typer.Option(min=32, metavar="PIXELS", help="Height and width of images."),
    ] = 96,
    batch_size: Annotated[
        int, typer.Option(min=2, metavar="N", help="Images in a batch.")
    ] = 16,
    steps: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Pairs of training steps to time; fewer if they take over 80 s.",
        ),
    ] = 30,
    seconds: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="How long the converted model then trains on alone, at most.",
        ),
    ] = 80.0,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Of weights, split and order.")
    ] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures as one JSON document.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Train a MobileNetV2 on real images, stock and converted side by side.

    Both train on the same batches from the same weights, and each step is timed.
    Then the converted model trains on alone, to show what accuracy it reaches.
    Needs scikit-learn and pillow: pip install 'keras-diagwise\\[demo]'
    """
    with one_line_errors(debug):
        with Progress() as progress:
            with progress.phase("loading Keras"):
                import_keras()
            from keras_diagwise.cli import demo_tables

            figures = measured(
                folder=images,
                dataset=dataset.value,
                model_name=model.value,
                plan=plan,
                image_size=image_size,
                batch_size=batch_size,
                steps=steps,
                seconds=seconds,
                seed=seed,
                progress=progress,
            )
        if as_json:
            typer.echo(json.dumps(figures, indent=1))
        else:
            demo_tables.show(figures)


def measured(
    *,
    folder: Path | None,
    dataset: str,
    model_name: str,
    plan: str,
    image_size: int,
    batch_size: int,
    steps: int,
    seconds: float,
    seed: int,
    progress: Progress,
) -> dict:
    """The demo's figures, in JSON's types."""
    import keras

    from keras_diagwise.cli import demo_figures, side_by_side

    standardized = plan_of_passes(plan)
    with progress.phase("loading images"):
        loaded = loaded_images(dataset, folder, image_size, seed, batch_size)
    with progress.phase("building models"):
        keras.utils.set_random_seed(seed)
        stock = side_by_side.stock_model(model_name, image_size, len(loaded.classes))
        converted = converted_copy(stock, standardized)
    measured = side_by_side.train_both(
        stock,
        converted,
        loaded,
        batch_size=batch_size,
        steps=steps,
        seconds=seconds,
        seed=seed,
        progress=progress,
    )
    settings = {
        "model": model_name,
        "plan": plan,
        "image_size": image_size,
        "batch_size": batch_size,
        "seed": seed,
    }
    return demo_figures.figures(settings, loaded, measured, converted)


def loaded_images(
    dataset: str, folder: Path | None, size: int, seed: int, batch_size: int
):
    """The chosen images, at least one batch of them.

    Raises:
        UserError: if a package is missing, the folder can't be used, or there are too
            few images.
    """
    from keras_diagwise.cli.image_folder import from_folder
    from keras_diagwise.cli.images import digits, photographs

    if folder is not None:
        images = from_folder(folder, size, seed)
    else:
        images = {"digits": digits, "photographs": photographs}[dataset](size, seed)
    count = len(images.labels["training"])
    if count < batch_size:
        raise UserError(
            f"{images.source} leave {count} to train on, fewer than a batch of "
            f"{batch_size}. Add images, or give a smaller --batch-size."
        )
    return images


def plan_of_passes(text: str):
    """The plan that `--plan` names.

    Raises:
        UserError: if it is not a plan.
    """
    from keras_diagwise.plan import standardize_plan
    from keras_diagwise.problem import PASSES

    names = [name.strip() for name in text.split(",")]
    remedy = (
        "Give 'auto', an algorithm such as 'direct', or three separated by commas: "
        f"{','.join(PASSES)}"
    )
    if len(names) not in (1, len(PASSES)):
        raise UserError(f"--plan names {len(names)} algorithms: {text!r}. {remedy}")
    try:
        if len(names) == 1:
            return standardize_plan(names[0])
        return standardize_plan(dict(zip(PASSES, names, strict=True)))
    except ValueError as error:
        raise UserError(f"--plan: {error}. {remedy}") from error


def converted_copy(stock, plan):
    """The converted copy of a model.

    Raises:
        UserError: if the plan does not fit the model's channels.
    """
    from keras_diagwise import convert

    try:
        return convert(stock, plan=plan, copy=True, verbose=0)
    except ValueError as error:
        raise UserError(f"--plan does not fit the model: {error}") from error
