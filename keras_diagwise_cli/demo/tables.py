"""Tables of the demo's figures."""

from __future__ import annotations

import itertools

import rich.markup
from rich.table import Table

from keras_diagwise.durations import duration
from keras_diagwise.planning.source import PlanSource
from keras_diagwise_cli.benchmark.table import add_first, add_times, times_table
from keras_diagwise_cli.terminal.console import console
from keras_diagwise_cli.terminal.tables import plain_table, ratio, texts

WIDTH = 80

WHERE_NEXT = """\
[bold]Next:[/bold] convert your own model, with KERAS_BACKEND={backend} set
  import keras_diagwise
  model = keras_diagwise.convert(model)   # weights and compiled state stay
  model.fit(images, labels)
and, with the model in a file, tune it on this machine:
  keras-diagwise tune model.keras --batch-size 32
  keras-diagwise report model.keras -o report.html"""


def show(report: dict) -> None:
    """Prints the figures as two tables, with explanations."""
    terminal = console(max_width=WIDTH)
    terminal.print(title(report), "", sep="\n")
    terminal.print(measured_table(report), "", sep="\n")
    for line in meaning(report):
        terminal.print(line)
    terminal.print()
    terminal.print(plans_table(report), "", sep="\n")
    terminal.print(WHERE_NEXT.format(backend=report["environment"]["backend"]))
    terminal.print(f"[dim]{where_measured(report)}[/dim]")


def title(report: dict) -> str:
    settings, images = report["settings"], report["images"]
    size = settings["image_size"]
    return (
        f"[bold]{settings['model']}[/bold], stock and converted, trained side by side\n"
        f"on {rich.markup.escape(images['source'])} ({images['held_out']:,} held out), "
        f"{size}×{size}, batches of {settings['batch_size']}"
    )


def measured_table(report: dict) -> Table:
    """Times of the steps, losses and accuracies of both models."""
    table = times_table()
    loss, accuracy = report["losses"], report["accuracy"]
    add_times(table, "training step", times_of(report["training_step"]))
    add_first(table, **report["first_step_s"])
    add_times(table, "prediction", times_of(report["prediction"]))
    add_pair(table, f"loss of step {loss['steps']}", loss, "{:.4f}")
    add_pair(table, f"held-out accuracy, {accuracy['steps']} steps", accuracy, "{:.1%}")
    return table


def times_of(measured: dict) -> dict:
    """The times of a kind of step, as `add_times` takes them."""
    return {
        "rounds": len(measured["pairs_s"]),
        "stock": measured["stock_ms"] / 1e3,
        "converted": measured["converted_ms"] / 1e3,
        "ratio": measured["median_of_paired_ratios"],
        "at_least": measured["at_least"],
        "at_most": measured["at_most"],
    }


def add_pair(table: Table, label: str, values: dict, form: str) -> None:
    table.add_row(label, *(written(form, values[n]) for n in ("stock", "converted")))


def written(form: str, value: float | None) -> str:
    return "no number" if value is None else form.format(value)


def meaning(report: dict) -> list[str]:
    """Explanations below the table."""
    further = report["converted_alone"]
    lines = [about_losses(report["losses"])]
    if further:
        lines.append(
            "The converted model then trained on alone: "
            f"{further['steps']:,} steps in {duration(further['training_s'])}, to "
            f"[bold]{further['accuracy']:.1%}[/bold] accuracy on the held-out images. "
            "At its measured pace the stock model would need "
            f"{duration(further['stock_would_need_s'])} for these steps."
        )
    if report["runs_native_only"]:
        lines.append(f"[yellow]{why_native(report['layers'])}[/yellow]")
    return lines


def about_losses(losses: dict) -> str:
    """One sentence on how the losses of both models differ."""
    first, last, largest = (
        losses[f"relative_difference_{which}"] for which in ("first", "last", "largest")
    )
    if largest == 0:
        return "The losses of both models are equal at every step."
    return (
        f"The losses differ by {written('{:.1g}', first)} of their size at the first "
        f"step, {written('{:.1g}', last)} at step {losses['steps']}, and "
        f"{written('{:.1g}', largest)} at most: rounding errors grow during training."
    )


def why_native(layers: list[dict]) -> str:
    """One sentence for a converted model that runs stock's operations."""
    sources = {each["rung"] for each in layers}
    if sources == {PlanSource.LAYER}:
        return "Because of --plan the converted model runs the stock operations."
    if sources <= {PlanSource.NATIVE, PlanSource.NOT_CALLED}:
        return (
            "No measurements for this backend and device are available: the converted "
            "model runs the stock operations."
        )
    return (
        "On this backend nothing measured is faster than native: the converted model "
        "runs the stock operations."
    )


def plans_table(report: dict) -> Table:
    """A row for each run of layers with one problem and one plan."""
    table = plain_table(
        texts("layer"),
        texts("problem\nplan: forward, input gradient, kernel gradient"),
    )
    # MobileNet's equal layers are adjacent.
    for what, group in itertools.groupby(report["layers"], described):
        table.add_row("\n".join(each["path"] for each in group), what)
    return table


def described(layer: dict) -> str:
    gain = "" if layer["gain"] is None else f", {ratio(layer['gain'])}"
    return (
        f"{layer['problem'] or 'unknown'}\n"
        f"{layer['plan'] or 'unknown'} [dim]({layer['rung']}{gain})[/dim]"
    )


def where_measured(report: dict) -> str:
    here = report["environment"]
    versions = (f"{name} {each}" for name, each in here["versions"].items() if each)
    return (
        f"Measured with Keras {here['keras']}, {', '.join(versions)} "
        f"({here['compiler_mode']}), {here['device_kind']} {here['device_name']}, "
        f"{here['cores']} cores."
    )
