"""`keras-diagwise demo`: trains a model on real images, stock against converted."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_diagwise_cli.commands import app
from keras_diagwise_cli.errors import UserError, one_line_errors, user_errors
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.loading import load_package
from keras_diagwise_cli.options import check_seconds
from keras_diagwise_cli.terminal.output import print_json
from keras_diagwise_cli.terminal.progress import Progress

if TYPE_CHECKING:
    from keras_diagwise.plan import Plan
    from keras_diagwise_cli.demo.images import Images

EXAMPLES = examples(
    (
        "keras-diagwise demo",
        "train on scanned digits; about five minutes on two cores",
    ),
    (
        "keras-diagwise demo --images my_photos --image-size 160",
        "train on your own images, with a subfolder for each class",
    ),
    (
        "keras-diagwise demo --plan direct --json > figures.json",
        "another plan, and the figures as JSON",
    ),
    (
        "keras-diagwise demo --steps 5 --seconds 0",
        "a short run: a few steps of both, and no training after them",
    ),
)


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


@app.command("demo", epilog=EXAMPLES)
@one_line_errors
def demo(
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Train on your own images: a folder with a subfolder for each class.",
        ),
    ] = None,
    dataset: Annotated[
        Dataset,
        typer.Option(
            metavar="NAME",
            help="Or on images of scikit-learn: digits or photographs.",
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
            help="'auto', an algorithm such as 'direct', or three separated by commas: "
            "forward pass, input gradient, kernel gradient.",
        ),
    ] = "auto",
    image_size: Annotated[
        int,
        typer.Option(min=32, metavar="PIXELS", help="Height and width of the images."),
    ] = 96,
    batch_size: Annotated[
        int, typer.Option(min=2, metavar="N", help="Images per step.")
    ] = 16,
    steps: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Training steps of each model to time; fewer if they take over 80 s.",
        ),
    ] = 30,
    seconds: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            callback=check_seconds,
            help="How long the converted model trains on alone, at most.",
        ),
    ] = 80.0,
    seed: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Seed of the weights and the order of the images."
        ),
    ] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the figures as one JSON document.")
    ] = False,
) -> None:
    """Train a MobileNetV2 on real images, stock and converted side by side.

    Both train on the same batches from the same weights, and each step is timed.
    The converted model then trains on alone, to show the accuracy that it reaches.
    Needs scikit-learn and pillow: pip install 'keras-diagwise\\[demo]'
    """
    load_package()
    import keras

    from keras_diagwise_cli.demo import figures, tables, training

    standardized = plan_of_passes(plan)
    with Progress() as progress:
        with progress.phase("loading images"):
            loaded = loaded_images(dataset.value, images, image_size, seed, batch_size)
        with progress.phase("building models"):
            keras.utils.set_random_seed(seed)
            stock = training.stock_model(model.value, image_size, len(loaded.classes))
            converted = converted_copy(stock, standardized)
        measured = training.train_both(
            {"stock": stock, "converted": converted},
            loaded,
            batch_size=batch_size,
            steps=steps,
            seconds=seconds,
            seed=seed,
            progress=progress,
        )
    settings = {
        "model": model.value,
        "plan": plan,
        "image_size": image_size,
        "batch_size": batch_size,
        "seed": seed,
    }
    found = figures.figures(settings, loaded, measured, converted)
    if as_json:
        print_json(found)
    else:
        tables.show(found)


def loaded_images(
    dataset: str, folder: Path | None, size: int, seed: int, batch_size: int
) -> Images:
    """The chosen images, at least one batch of them.

    Raises:
        UserError: if a package is missing, the folder can't be used, or there are too
            few images.
    """
    from keras_diagwise_cli.demo.image_folder import from_folder
    from keras_diagwise_cli.demo.images import digits, photographs

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


def plan_of_passes(text: str) -> str | Plan:
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
    with user_errors(ValueError, saying=lambda error: f"--plan: {error}. {remedy}"):
        if len(names) == 1:
            return standardize_plan(names[0])
        return standardize_plan(dict(zip(PASSES, names, strict=True)))


def converted_copy(stock, plan):
    """The converted copy of a model.

    Raises:
        UserError: if the plan does not fit the model's channels.
    """
    from keras_diagwise import convert

    with user_errors(
        ValueError, saying=lambda error: f"--plan does not fit the model: {error}"
    ):
        return convert(stock, plan=plan, copy=True, verbose=0)
