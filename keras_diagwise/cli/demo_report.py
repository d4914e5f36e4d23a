"""What the demo found, as figures and as tables."""

from __future__ import annotations

import itertools
import math
import platform
import statistics

import keras
import rich.box
import rich.console
import rich.table

import keras_diagwise
from keras_diagwise.cli.images import Images
from keras_diagwise.cli.side_by_side import Pair, Race, median_ratio
from keras_diagwise.planning.environment import Environment

WIDTH = 80

WHERE_NEXT = """\
[bold]Where to go next:[/bold] convert your own model
  import keras_diagwise
  model = keras_diagwise.convert(model)   # weights and compile state stay
  model.fit(images, labels)"""


def figures(settings: dict, images: Images, race: Race, converted: keras.Model) -> dict:
    """All that the demo reports, in JSON's types.

    Args:
        settings: what was asked for, with its `batch_size`.
        images: what was trained on.
        race: what was measured.
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
        "training_step": times(race.steps),
        "prediction": times(race.predictions),
        "first_step_s": dict(
            zip(("stock", "converted"), race.first_steps, strict=True)
        ),
        "losses": losses(race.losses),
        "accuracy": {
            "steps": len(race.losses),
            "stock": race.accuracies[0],
            "converted": race.accuracies[1],
        },
        "converted_alone": alone(race),
        "layers": plans,
        "runs_native_only": all(each["is_native"] for each in plans),
        "environment": environment(),
    }


def times(pairs: list[Pair]) -> dict:
    """Medians of pairs of seconds, in milliseconds, and the pairs themselves."""
    stock, converted = (
        1e3 * statistics.median(each) for each in zip(*pairs, strict=True)
    )
    return {
        "stock_ms": stock,
        "converted_ms": converted,
        "ratio": stock / converted,
        "median_of_paired_ratios": median_ratio(pairs),
        "pairs_s": pairs,
    }


def losses(pairs: list[Pair]) -> dict:
    """The losses after the same steps, and how far apart they were."""
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
    """Between two losses, or `None` where one is no number."""
    largest = max(abs(stock), abs(converted))
    return finite(abs(stock - converted) / largest if largest else 0.0)


def finite(value: float) -> float | None:
    """`value`, or `None` where JSON has no word for it."""
    return value if math.isfinite(value) else None


def alone(race: Race) -> dict | None:
    """How the converted model went on, and how long stock would have needed."""
    if not race.further_steps:
        return None
    stock_pace = statistics.median(stock for stock, _ in race.steps)
    return {
        "steps": race.further_steps,
        "training_s": race.further_seconds,
        "stock_would_need_s": race.further_steps * stock_pace,
        "accuracy": race.further_accuracy,
    }


def plans_of(converted: keras.Model, batch_size: int) -> list[dict]:
    """What each of the package's layers runs, in words."""
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


def environment() -> dict:
    """What the figures hold for."""
    return {
        **Environment.current().to_dict(),
        "keras": keras.__version__,
        "keras_diagwise": keras_diagwise.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def show(report: dict) -> None:
    """Prints the figures as two tables, with what they mean around them."""
    console = rich.console.Console(highlight=False)
    console = rich.console.Console(highlight=False, width=min(console.width, WIDTH))
    console.print(title(report))
    console.print(measured_table(report))
    for line in meaning(report):
        console.print(line)
    console.print()
    console.print(plans_table(report))
    console.print(WHERE_NEXT)
    console.print(f"[dim]{where_measured(report)}[/dim]")


def title(report: dict) -> str:
    settings, images = report["settings"], report["images"]
    size = settings["image_size"]
    return (
        f"[bold]{settings['model']}[/bold], stock and converted, trained side by side\n"
        f"on {rich.markup.escape(images['source'])} ({images['held_out']:,} held out), "
        f"{size}×{size}, batches of {settings['batch_size']}"
    )


def measured_table(report: dict) -> rich.table.Table:
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("stock", "converted", "stock / converted"):
        table.add_column(name, justify="right")
    step, prediction = report["training_step"], report["prediction"]
    first, loss, accuracy = (
        report[name] for name in ("first_step_s", "losses", "accuracy")
    )
    add_times(table, f"a training step, median of {len(step['pairs_s'])}", step)
    add_times(
        table, f"a prediction, median of {len(prediction['pairs_s'])}", prediction
    )
    add_pair(table, "first step (trace and compile)", first, "{:.1f} s")
    add_pair(table, f"loss of step {loss['steps']}", loss, "{:.4f}")
    add_pair(table, f"held-out accuracy, {accuracy['steps']} steps", accuracy, "{:.1%}")
    return table


def add_times(table: rich.table.Table, label: str, measured: dict) -> None:
    table.add_row(
        label,
        f"{measured['stock_ms']:,.0f} ms",
        f"{measured['converted_ms']:,.0f} ms",
        f"[bold]{measured['ratio']:.2f}×[/bold]",
    )
    table.add_row(
        "  median of the paired ratios",
        "",
        "",
        f"{measured['median_of_paired_ratios']:.2f}×",
    )


def add_pair(table: rich.table.Table, label: str, values: dict, form: str) -> None:
    table.add_row(label, *(written(form, values[n]) for n in ("stock", "converted")))


def written(form: str, value: float | None) -> str:
    return "no number" if value is None else form.format(value)


def meaning(report: dict) -> list[str]:
    """What the table does not say by itself."""
    loss, further = report["losses"], report["converted_alone"]
    first, last, largest = (
        written("{:.1g}", loss[f"relative_difference_{which}"])
        for which in ("first", "last", "largest")
    )
    lines = [
        f"Relative difference of the losses: {first} at the first step, {last} at step "
        f"{loss['steps']}, {largest} at most. Rounding grows as training goes on."
    ]
    if further:
        lines.append(
            f"The converted model then went on alone: {further['steps']:,} steps in "
            f"{further['training_s']:.0f} s, to [bold]{further['accuracy']:.1%}[/bold] "
            "of the held-out images.\nAt its measured pace stock would need "
            f"{further['stock_would_need_s']:,.0f} s for these steps."
        )
    if report["runs_native_only"]:
        lines.append(f"[yellow]{why_native(report['layers'])}[/yellow]")
    return lines


def why_native(layers: list[dict]) -> str:
    """One sentence for a converted model that runs stock's operations."""
    rungs = {each["rung"] for each in layers}
    if rungs == {"layer"}:
        return "By --plan the converted model runs stock's own operations."
    if rungs <= {"native", "called in no graph"}:
        return (
            "Nothing measured for this backend and device is at hand: the converted "
            "model runs stock's own operations."
        )
    return (
        "On this backend native was not beaten by anything measured: the converted "
        "model runs stock's own operations."
    )


def plans_table(report: dict) -> rich.table.Table:
    """A row for the layers that run the same problem by the same plan."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    table.add_column("depthwise layer", overflow="fold")
    table.add_column("its problem; plan of forward, input and kernel gradient")
    for what, group in itertools.groupby(report["layers"], described):
        table.add_row("\n".join(each["path"] for each in group), what)
    return table


def described(layer: dict) -> str:
    gain = "" if layer["gain"] is None else f", {layer['gain']:.1f}×"
    return (
        f"{layer['problem'] or 'unknown'}\n"
        f"{layer['plan'] or 'unknown'} [dim]({layer['rung']}{gain})[/dim]"
    )


def where_measured(report: dict) -> str:
    here = report["environment"]
    return (
        f"Measured on Keras {here['keras']}, {here['backend']} "
        f"{here['backend_version']} ({here['compiler_mode']}), {here['device_kind']} "
        f"{here['device_name']}, {here['cores']} cores."
    )
