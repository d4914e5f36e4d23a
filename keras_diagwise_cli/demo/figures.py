"""The figures of the demo, in JSON's types."""

from __future__ import annotations

import keras

import keras_diagwise
from keras_diagwise.environment import Environment
from keras_diagwise_cli.demo.images import Images
from keras_diagwise_cli.demo.training import SideBySide, Timed
from keras_diagwise_cli.environment_record import environment_record
from keras_diagwise_cli.terminal.output import finite


def figures(
    settings: dict, images: Images, measured: SideBySide, converted: keras.Model
) -> dict:
    """All figures of the demo, in JSON's types.

    Args:
        settings: the demo's options, with `batch_size`.
        images: the images.
        measured: the measurements.
        converted: the converted model.
    """
    plans = plans_of(converted, settings["batch_size"])
    return {
        "settings": settings,
        "images": {
            "source": images.source,
            "classes": list(images.classes),
            "training": len(images.labels["training"]),
            "held_out": len(images.labels["held out"]),
        },
        "training_step": times(measured.training),
        "prediction": times(measured.prediction),
        "first_step_s": {
            "stock": measured.training.steps.first_stock,
            "converted": measured.training.steps.first_converted,
        },
        "losses": losses(measured.losses),
        "accuracy": {"steps": len(measured.losses["stock"]), **measured.accuracies},
        "converted_alone": alone(measured),
        "layers": plans,
        "runs_native_only": all(each["is_native"] for each in plans),
        "environment": environment_record(Environment.current()),
    }


def times(timed: Timed) -> dict:
    """Medians of the steps, their ratios, and the steps of each round."""
    steps, samples = timed.steps, timed.samples
    return {
        "stock_ms": 1e3 * steps.stock,
        "converted_ms": 1e3 * steps.converted,
        "ratio": steps.stock / steps.converted,
        "median_of_paired_ratios": steps.ratio,
        "at_least": steps.at_least,
        "at_most": steps.at_most,
        "pairs_s": list(zip(samples["stock"], samples["converted"], strict=True)),
    }


def losses(by_model: dict[str, list[float]]) -> dict:
    """Losses of both models by step, and their differences."""
    pairs = list(zip(by_model["stock"], by_model["converted"], strict=True))
    differences = [relative_difference(*pair) for pair in pairs]
    known = [each for each in differences if each is not None]
    return {
        "steps": len(pairs),
        "stock": finite(pairs[-1][0]),
        "converted": finite(pairs[-1][1]),
        "relative_difference_first": differences[0],
        "relative_difference_last": differences[-1],
        "relative_difference_largest": max(known, default=None),
        "pairs": [[finite(loss) for loss in pair] for pair in pairs],
    }


def relative_difference(stock: float, converted: float) -> float | None:
    """Relative difference of two losses, or `None` if one is not finite."""
    largest = max(abs(stock), abs(converted))
    return finite(abs(stock - converted) / largest if largest else 0.0)


def alone(measured: SideBySide) -> dict | None:
    """Training of the converted model alone, and the time that stock would need."""
    if not measured.further_steps:
        return None
    return {
        "steps": measured.further_steps,
        "training_s": measured.further_seconds,
        "stock_would_need_s": measured.further_steps * measured.training.steps.stock,
        "accuracy": measured.further_accuracy,
    }


def plans_of(converted: keras.Model, batch_size: int) -> list[dict]:
    """The plan of each of the package's layers, as text."""
    return [
        {
            "path": each.path,
            "problem": None if each.problem is None else str(each.problem),
            "plan": None if each.plan is None else str(each.plan),
            "is_native": each.plan is None or each.plan.is_native,
            "rung": each.rung,
            "gain": each.gain,
        }
        for each in keras_diagwise.summary(converted, batch_size=batch_size)
    ]
