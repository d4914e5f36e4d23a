"""Tables of the demo's figures."""

from __future__ import annotations

import itertools

import rich.box
import rich.console
import rich.markup
import rich.table

from keras_diagwise._terminal import standard_console
from keras_diagwise.planning.source import PlanSource

WIDTH = 80

WHERE_NEXT = """\
[bold]Where to go next:[/bold] convert your own model, with KERAS_BACKEND={backend} set
  import keras_diagwise
  model = keras_diagwise.convert(model)   # weights and compile state stay
  model.fit(images, labels)
and measure what it needs on this machine, from its file:
  keras-diagwise tune model.keras --batch-size 32
  keras-diagwise report model.keras -o report.html"""


def show(report: dict) -> None:
    """Prints the figures as two tables, with explanations."""
    console = standard_console(highlight=False)
    console = standard_console(highlight=False, width=min(console.width, WIDTH))
    console.print(title(report), "", sep="\n")
    console.print(measured_table(report), "", sep="\n")
    for line in meaning(report):
        console.print(line)
    console.print()
    console.print(plans_table(report), "", sep="\n")
    console.print(WHERE_NEXT.format(backend=report["environment"]["backend"]))
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
    table = plain_table()
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


def plain_table() -> rich.table.Table:
    """A table with a line below its header, as narrow as possible."""
    return rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False)


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
    """Explanations below the table."""
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
            "of the held-out images right. At its measured pace stock would need "
            f"{further['stock_would_need_s']:,.0f} s for these steps."
        )
    if report["runs_native_only"]:
        lines.append(f"[yellow]{why_native(report['layers'])}[/yellow]")
    return lines


def why_native(layers: list[dict]) -> str:
    """One sentence for a converted model that runs stock's operations."""
    sources = {each["rung"] for each in layers}
    if sources == {PlanSource.LAYER}:
        return "By --plan the converted model runs stock's own operations."
    if sources <= {PlanSource.NATIVE, PlanSource.NOT_CALLED}:
        return (
            "Nothing measured for this backend and device is at hand: the converted "
            "model runs stock's own operations."
        )
    return (
        "On this backend native was not beaten by anything measured: the converted "
        "model runs stock's own operations."
    )


def plans_table(report: dict) -> rich.table.Table:
    """A row for each run of layers with one problem and one plan."""
    table = plain_table()
    table.add_column("depthwise layer", overflow="fold")
    table.add_column("its problem\nplan: forward, input gradient, kernel gradient")
    # MobileNet's equal layers are adjacent.
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
    versions = (f"{name} {each}" for name, each in here["versions"].items() if each)
    return (
        f"Measured on Keras {here['keras']}, {', '.join(versions)} "
        f"({here['compiler_mode']}), {here['device_kind']} {here['device_name']}, "
        f"{here['cores']} cores."
    )
