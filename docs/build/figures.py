"""The documentation's figures, drawn from the committed results.

Each is drawn twice, for light and dark pages, as SVG of a phone's width. The output of
one version of Matplotlib is reproducible byte for byte.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from docs.build.measurements import KINDS, WHOLE_MODEL, read, results_of, shipped, words
from docs.build.suite import problem_lines, ratios_of
from keras_diagwise.durations import milliseconds
from keras_diagwise.problem import PASSES, Problem
from tuning.ratios import geometric_mean
from tuning.summary import median_of

matplotlib.use("svg")

WIDTH = 4.1
"""Inches. A phone scales a point by 1.2, so that 8 points are legible."""


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of a page; those of the passes are colour-blind safe."""

    ink: str
    faint: str
    stock: str
    passes: tuple[str, str, str]
    chosen: str


THEMES = {
    "light": Theme(
        "#1f2328", "#d0d4da", "#8b929b", ("#0072b2", "#c75300", "#007a5a"), "#0072b2"
    ),
    "dark": Theme(
        "#e6e8eb", "#4a4f5a", "#8f96a3", ("#62b8f0", "#f0a04b", "#4cc9a0"), "#62b8f0"
    ),
}


def settings(theme: Theme) -> dict:
    """Matplotlib's settings for a theme."""
    return {
        "svg.hashsalt": "keras-diagwise",
        "svg.fonttype": "path",
        "font.family": "DejaVu Sans",
        "font.size": 8.5,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.labelsize": 8.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": theme.faint,
        "axes.labelcolor": theme.ink,
        "axes.titlecolor": theme.ink,
        "text.color": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "grid.color": theme.faint,
        "grid.alpha": 0.5,
        "legend.frameon": False,
        "legend.fontsize": 8,
    }


def blank(axes) -> None:
    """Removes the frame and ticks of axes with names."""
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)


IDEA = Problem.from_shapes((16, 1024, 128), (31, 1, 128), padding="same")
"""A shipped problem whose passes are won by different algorithms."""


def idea(theme: Theme) -> Figure:
    """The idea: timed candidates of each pass of one real convolution."""
    passes = next(
        found[IDEA] for _, found in shipped("cpu-jax-xla.json") if IDEA in found
    )
    timed = {
        name: {
            each: outcome["seconds"]
            for each, outcome in passes[name]["outcomes"].items()
            if "seconds" in outcome
        }
        for name in PASSES
    }
    heights = [len(each) for each in timed.values()]
    figure = Figure(figsize=(WIDTH, 0.26 * sum(heights) + 1), layout="constrained")
    panels = figure.subplots(3, 1, height_ratios=heights)
    longest = max(max(each.values()) for each in timed.values())
    for panel, (name, seconds) in zip(panels, timed.items(), strict=True):
        order = sorted(seconds, key=seconds.__getitem__, reverse=True)
        for row, each in enumerate(order):
            best = row == len(order) - 1
            colour = theme.chosen if best else theme.stock
            panel.barh(row, seconds[each], color=colour, height=0.72)
            text = f" {milliseconds(seconds[each])} ms"
            if best:
                text += f", {seconds['native'] / seconds[each]:.0f}× faster"
            weight = "bold" if best else "normal"
            panel.text(seconds[each], row, text, va="center", fontweight=weight)
        panel.set_yticks(range(len(order)), order)
        panel.set_ylim(-0.5, len(order) - 0.5)
        panel.set_xticks([])
        panel.set_xlim(0, 1.22 * longest)
        panel.set_title(words(name), fontweight="bold")
        blank(panel)
    return figure


def gain(theme: Theme) -> Figure:
    """A training step of a whole model, stock and converted."""
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    panel = figure.subplots()
    rows = list(WHOLE_MODEL.items())[::-1]
    for row, (_, (file, part)) in enumerate(rows):
        step = read(file)[part]["figures"]["train_step"]
        stock, ours = step["stock_ms"], step["converted_ms"]
        panel.barh(row + 0.19, stock, height=0.36, color=theme.stock)
        panel.barh(row - 0.19, ours, height=0.36, color=theme.chosen)
        panel.text(stock, row + 0.19, f" {stock:.0f} ms", va="center")
        text = f" {ours:.0f} ms, {step['speedup']:.1f}×"
        panel.text(ours, row - 0.19, text, va="center", fontweight="bold")
    names = [KINDS[kind].replace(", ", ",\n") for kind, _ in rows]
    panel.set_yticks(range(len(rows)), names)
    panel.set_xticks([])
    panel.set_xlim(0, panel.get_xlim()[1] * 1.12)
    blank(panel)
    handles = [Rectangle((0, 0), 1, 1, color=c) for c in (theme.stock, theme.chosen)]
    figure.legend(handles, ["stock", "converted"], loc="outside upper left", ncols=2)
    return figure


CHANNELS = 6
"""Channels of the drawn kernel."""


def kernel_in_blocks(size: int) -> np.ndarray:
    """The drawn kernel at one tap, in blocks of a size."""
    from keras import ops

    from keras_diagwise.algorithms.diagonal import Segment, block_diagonal

    values = np.array([3, -1, 2, 5, -2, 4], "float32")
    kernel = ops.reshape(values, (1, 1, 1, CHANNELS))
    filled = block_diagonal(kernel, Segment(0, CHANNELS, size))
    return np.asarray(ops.convert_to_numpy(filled))[0, 0]


def blocks(theme: Theme) -> Figure:
    """The kernel of six channels at one tap: compact, and in blocks of each size."""
    figure = Figure(figsize=(WIDTH, 2.75), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(1, 1, 1))
    for panel, size in zip(panels, (1, 3, CHANNELS), strict=True):
        filled = kernel_in_blocks(size)
        for column, place in itertools.product(range(CHANNELS), range(size)):
            row = column // size * size + place
            draw_weight(panel, column, row, filled[place, column], theme)
        panel.set_xlim(-0.1, CHANNELS + 0.1)
        panel.set_ylim(CHANNELS + 0.1, -0.1)
        panel.set_aspect("equal")
        panel.set_xticks([])
        panel.set_yticks([])
        blank(panel)
        count = CHANNELS // size
        panel.set_title(f"size {size}", fontweight="bold")
        of = f"{count} block{'s' if count > 1 else ''}\n{filled.size} products"
        panel.set_xlabel(of)
    return figure


def draw_weight(panel, column: int, row: int, value: float, theme: Theme) -> None:
    """Draws a weight of a kernel as a number in a box."""
    colour = to_rgba(theme.chosen, 0.9) if value else to_rgba(theme.faint, 0.55)
    panel.add_patch(Rectangle((column, row), 0.92, 0.92, color=colour, lw=0))
    on_colour = "white" if theme is THEMES["light"] else "#10141a"
    text = f"{value:.0f}".replace("-", "\N{MINUS SIGN}")
    look = {"color": on_colour if value else theme.ink, "fontsize": 7.5}
    panel.text(column + 0.46, row + 0.5, text, ha="center", va="center", **look)


def digits(theme: Theme) -> Figure:
    """The first three scans that the tutorial trains on."""
    from sklearn.datasets import load_digits

    figure = Figure(figsize=(WIDTH, 1.5), layout="constrained")
    colours = LinearSegmentedColormap.from_list("scan", (theme.faint, theme.ink))
    scans = load_digits()
    for panel, scan, digit in zip(
        figure.subplots(1, 3), scans.images, scans.target, strict=False
    ):
        panel.pcolormesh(scan[::-1], cmap=colours)
        panel.set_aspect("equal")
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_title(str(digit))
        blank(panel)
    return figure


def models(theme: Theme) -> Figure:
    """Gain of the depthwise layers of each model, by backend and mode."""
    kinds = [kind for kind in KINDS if ratios_of(kind)]
    names = list(ratios_of(kinds[0]))[::-1]
    figure = Figure(figsize=(WIDTH, 0.42 * len(names) + 1.1), layout="constrained")
    panel = figure.subplots()
    markers = dict(zip(KINDS, "osD^", strict=True))
    colours = dict(zip(KINDS, (*theme.passes, theme.stock), strict=True))
    for kind in kinds:
        ratios = ratios_of(kind)
        for row, name in enumerate(names):
            panel.plot(
                [min(ratios[name]), max(ratios[name])],
                [row, row],
                color=colours[kind],
                alpha=0.35,
                lw=5,
                solid_capstyle="butt",
            )
        panel.plot(
            [geometric_mean(ratios[name]) for name in names],
            range(len(names)),
            markers[kind],
            color=colours[kind],
            label=KINDS[kind],
        )
    panel.axvline(1, color=theme.ink, lw=0.8)
    panel.set_xscale("log")
    panel.set_xticks(
        [1, 3, 10, 30, 100, 300], ["1×", "3×", "10×", "30×", "100×", "300×"]
    )
    panel.minorticks_off()
    panel.set_yticks(range(len(names)), names)
    panel.set_xlabel("times faster than native (dot: geometric mean)")
    panel.grid(axis="x")
    blank(panel)
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def roofline(kind: str, theme: Theme) -> Figure:
    """Passes of each problem against the roofline, on one backend and mode."""
    figure = Figure(figsize=(WIDTH, 6.6), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True, sharey=True)
    lines = [line["kinds"][kind] for line in problem_lines(kind)]
    least = [1e3 * found["least"] for found in lines]
    for panel, name in zip(panels, PASSES, strict=True):
        native = [1e3 * median_of(each, name, "native") for each in lines]
        plan = [1e3 * median_of(each, name, each["plan"][name]) for each in lines]
        ends = [min(least), max(least)]
        panel.plot(least, native, "x", color=theme.stock, label="native", ms=4)
        panel.plot(least, plan, "o", color=theme.chosen, label="plan", ms=3.5)
        panel.plot(ends, ends, "--", color=theme.ink, lw=1, label="roofline")
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_ylabel("ms taken")
        panel.set_title(words(name), fontweight="bold")
        panel.minorticks_off()
        plain_milliseconds(panel.yaxis)
        panel.grid()
    panels[-1].xaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    plain_milliseconds(panels[-1].xaxis)
    panels[-1].set_xlabel("roofline, ms")
    name_curves(figure, panels[0], columns=3)
    return figure


def partition_sizes(result: dict, theme: Theme) -> Figure:
    """Time against partition size, from a file of `tuning.partition_sizes`."""
    figure = Figure(figsize=(WIDTH, 6.2), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    for panel, name, colour in zip(panels, PASSES, theme.passes, strict=True):
        taken = result["seconds"][name]
        sizes = [int(each.split(":")[1]) for each in taken if each[:8] == "diagonal"]
        times = [1e3 * taken[f"diagonal:{size}:split"] for size in sizes]
        panel.loglog(sizes, times, "o-", color=colour, ms=4, label="diagonal, split")
        best = times.index(min(times))
        panel.plot(sizes[best], times[best], "o", ms=9, mfc="none", color=colour)
        panel.axhline(1e3 * taken["native"], color=theme.stock, ls="-", label="native")
        panel.axhline(1e3 * taken["direct"], color=theme.stock, ls=":", label="direct")
        panel.set_title(words(name), fontweight="bold")
        panel.set_ylabel("ms")
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.minorticks_off()
        panel.yaxis.set_major_locator(LogLocator(10, (1, 3)))
        plain_milliseconds(panel.yaxis)
        panel.grid()
    panels[-1].set_xlabel("partition size (channels in a dense block)")
    legend = name_curves(figure, panels[0], columns=3)
    legend.legend_handles[0].set_color(theme.ink)
    return figure


def plain_milliseconds(axis) -> None:
    """Formats a logarithmic axis as 1, 10, 100 instead of powers."""
    axis.set_major_formatter(lambda value, place: f"{value:g}")


AXES = {
    "batch": "images in a batch",
    "channels": "channels",
    "pixels": "pixels of an image",
    "kernel": "taps of the kernel",
}


def growth(result: dict, theme: Theme) -> Figure:
    """Time against each size of a problem, from a file of `tuning.growth`."""
    figure = Figure(figsize=(WIDTH, 8.6), layout="constrained")
    panels = figure.subplots(len(AXES), 1)
    for panel, (axis, label) in zip(panels, AXES.items(), strict=True):
        points = result["axes"][axis]
        at = [each["at"] for each in points]
        for name, colour in zip(PASSES, theme.passes, strict=True):
            taken = [1e3 * each["seconds"][name] for each in points]
            panel.loglog(at, taken, "o-", ms=3, lw=1.2, color=colour, label=words(name))
        least = [1e3 * each["least"] for each in points]
        panel.loglog(at, least, "--", color=theme.ink, lw=1, label="roofline")
        panel.set_xlabel(label)
        panel.set_ylabel("ms")
        plain_milliseconds(panel.xaxis)
        plain_milliseconds(panel.yaxis)
        panel.minorticks_off()
        panel.grid()
    name_curves(figure, panels[0], columns=2)
    return figure


def name_curves(figure: Figure, panel, columns: int) -> Legend:
    """Adds a legend of a panel's curves above all panels."""
    handles, labels = panel.get_legend_handles_labels()
    return figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def figures() -> dict[str, Callable[[Theme], Figure]]:
    """The function that draws each figure, by name."""
    kinds = [kind for kind in KINDS if problem_lines(kind)]
    return {
        "idea": idea,
        "gain": gain,
        "blocks": blocks,
        "digits": digits,
        "models": models,
        **{f"roofline-{kind}": partial(roofline, kind) for kind in kinds},
        **{name: partial(growth, each) for name, each in results_of("growth-*.json")},
        **{
            name: partial(partition_sizes, each)
            for name, each in results_of("partition-sizes-*.json")
        },
    }


def draw_all(folder: Path) -> None:
    """Writes every figure, light and dark, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in figures().items():
        for theme_name, theme in THEMES.items():
            with matplotlib.rc_context(settings(theme)):
                path = folder / f"{name}-{theme_name}.svg"
                metadata = {"Date": None, "Creator": None}
                draw(theme).savefig(path, transparent=True, metadata=metadata)
                path.write_text(with_numbers_for_names(path.read_text()))


def with_numbers_for_names(text: str) -> str:
    """A figure with Matplotlib's hashed names replaced by numbers: the last bit of the
    hashed values differs between CPUs."""
    names = dict.fromkeys(re.findall(r'id="([a-z][0-9a-f]{10})"', text))
    numbers = {name: f"{name[0]}{n}" for n, name in enumerate(names)}
    return re.sub(
        r"\b[a-z][0-9a-f]{10}\b", lambda found: numbers.get(found[0], found[0]), text
    )
