"""Draws the documentation's figures from the committed results.

    python -m tuning.figures [FOLDER]     (docs/figures if none is given)

Each is drawn twice, for light and dark pages, as SVG of a phone's width. The output of
one version of Matplotlib is reproducible byte for byte.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from keras_diagwise.planning.planner import SHIPPED
from keras_diagwise.problem import PASSES, Problem
from tuning.ratios import geometric_mean
from tuning.records import RESULTS, Records
from tuning.summary import is_complete, median_of, total
from tuning.workloads import GROUPED, WHOLE_MODELS

matplotlib.use("svg")

FOLDER = Path(__file__).parents[1] / "docs" / "figures"

WIDTH = 4.1
"""Inches. A phone scales a point by 1.2, so that 8 points are legible."""

SUITES = sorted(RESULTS.glob("*/suite-models-*.jsonl"))

KINDS = {
    "jax": "JAX",
    "tensorflow-xla": "TensorFlow, jit_compile",
    "tensorflow": "TensorFlow, graph",
    "torch": "torch, eager",
}
"""Display names of the suite's kinds."""

STEPS = {
    "JAX": ("acceptance-jax.json", "model"),
    "TensorFlow,\njit_compile": ("acceptance-tensorflow.json", "model_jit_compile"),
    "TensorFlow,\ngraph": ("acceptance-tensorflow.json", "model"),
    "torch,\neager": ("acceptance-torch.json", "model"),
}
"""File and part of a whole model's step, by backend."""


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


def milliseconds(value: float) -> str:
    """Milliseconds, to two or three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def words(pass_name: str) -> str:
    return pass_name.replace("_", " ")


def blank(axes) -> None:
    """Removes the frame and ticks of axes with names."""
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)


def shipped(name: str, wanted: Problem) -> dict:
    """The comparisons of a problem in a shipped document, by pass."""
    document = json.loads((SHIPPED / name).read_text())
    return next(
        decision["passes"]
        for each in document["environments"]
        for decision in each["decisions"]
        if Problem.from_dict(decision["problem"]) == wanted
    )


IDEA = Problem.from_shapes((16, 1024, 128), (31, 1, 128), padding="same")
"""A shipped problem whose passes are won by different algorithms."""


def idea(theme: Theme) -> Figure:
    """The idea: timed candidates of each pass of one real convolution."""
    passes = shipped("cpu-jax-xla.json", IDEA)
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
            text = f" {milliseconds(1e3 * seconds[each])} ms"
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
    rows = list(STEPS.items())[::-1]
    for row, (_, (file, part)) in enumerate(rows):
        step = json.loads((RESULTS / file).read_text())[part]["figures"]["train_step"]
        stock, ours = step["stock_ms"], step["converted_ms"]
        panel.barh(row + 0.19, stock, height=0.36, color=theme.stock)
        panel.barh(row - 0.19, ours, height=0.36, color=theme.chosen)
        panel.text(stock, row + 0.19, f" {stock:.0f} ms", va="center")
        text = f" {ours:.0f} ms, {step['speedup']:.1f}×"
        panel.text(ours, row - 0.19, text, va="center", fontweight="bold")
    panel.set_yticks(range(len(rows)), [name for name, _ in rows])
    panel.set_xticks([])
    panel.set_xlim(0, panel.get_xlim()[1] * 1.12)
    blank(panel)
    handles = [Rectangle((0, 0), 1, 1, color=c) for c in (theme.stock, theme.chosen)]
    figure.legend(handles, ["stock", "converted"], loc="outside upper left", ncols=2)
    return figure


CHANNELS = 6
"""Channels of the drawn kernel."""


def blocks(theme: Theme) -> Figure:
    """The kernel of six channels at one tap: compact, and in blocks of each size."""
    from keras import ops

    from keras_diagwise.algorithms.diagonal import Segment, block_diagonal

    values = np.array([3, -1, 2, 5, -2, 4], "float32")
    kernel = ops.reshape(values, (1, 1, 1, CHANNELS))
    figure = Figure(figsize=(WIDTH, 2.75), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(1, 1, 1))
    for panel, size in zip(panels, (1, 3, CHANNELS), strict=True):
        filled = np.asarray(
            ops.convert_to_numpy(block_diagonal(kernel, Segment(0, CHANNELS, size)))
        )[0, 0]
        for column in range(CHANNELS):
            for place in range(size):
                row = column // size * size + place
                value = filled[place, column]
                colour = theme.chosen if value else theme.faint
                alpha = 0.9 if value else 0.55
                box = Rectangle(
                    (column, row), 0.92, 0.92, color=to_rgba(colour, alpha), lw=0
                )
                panel.add_patch(box)
                light = theme is THEMES["light"]
                ink = ("white" if light else "#10141a") if value else theme.ink
                panel.text(
                    column + 0.46,
                    row + 0.5,
                    f"{value:.0f}".replace("-", "\N{MINUS SIGN}"),
                    ha="center",
                    va="center",
                    color=ink,
                    fontsize=7.5,
                )
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


def suite_lines() -> Iterator[dict]:
    """Records of all runs of the suite, one for each problem in each run."""
    for path in SUITES:
        yield from Records(path).lines


def problem_lines(kind: str) -> list[dict]:
    """Records of one kind, one for each problem: that of the last run by file name."""
    found = {
        Problem.from_dict(line["key"]): line
        for line in suite_lines()
        if is_complete(line["kinds"].get(kind, {}))
    }
    return list(found.values())


def ratios_of(kind: str) -> dict[str, list[float]]:
    """Native over plan for each problem, all passes together, by model. Models with an
    unmeasured problem are left out."""
    by_problem = {}
    for line in problem_lines(kind):
        found = line["kinds"][kind]
        problem = dataclasses.replace(Problem.from_dict(line["key"]), batch=None)
        by_problem[problem] = total(found) / total(found, found["plan"])
    ratios = {}
    for name, problems in json.loads(GROUPED.read_text()).items():
        keys = [
            dataclasses.replace(Problem.from_dict(each), batch=None)
            for each in problems
        ]
        if name in WHOLE_MODELS and keys and set(keys) <= set(by_problem):
            ratios[name] = [by_problem[key] for key in keys]
    return ratios


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


def roofline_of(kind: str) -> Callable[[Theme], Figure]:
    """Figure of one backend and mode: passes of each problem against the roofline."""

    def draw(theme: Theme) -> Figure:
        figure = Figure(figsize=(WIDTH, 6.6), layout="constrained")
        panels = figure.subplots(3, 1, sharex=True, sharey=True)
        lines = [line["kinds"][kind] for line in problem_lines(kind)]
        roofline = [1e3 * found["least"] for found in lines]
        for panel, name in zip(panels, PASSES, strict=True):
            native = [1e3 * median_of(each, name, "native") for each in lines]
            plan = [1e3 * median_of(each, name, each["plan"][name]) for each in lines]
            ends = [min(roofline), max(roofline)]
            panel.plot(roofline, native, "x", color=theme.stock, label="native", ms=4)
            panel.plot(roofline, plan, "o", color=theme.chosen, label="plan", ms=3.5)
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
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3)
        return figure

    return draw


def partition_sizes_of(path: Path) -> Callable[[Theme], Figure]:
    """Figure of a file of `tuning.partition_sizes`: time against partition size."""

    def draw(theme: Theme) -> Figure:
        result = json.loads(path.read_text())
        figure = Figure(figsize=(WIDTH, 6.2), layout="constrained")
        panels = figure.subplots(3, 1, sharex=True)
        for panel, name, colour in zip(panels, PASSES, theme.passes, strict=True):
            taken = result["seconds"][name]
            sizes = [
                int(each.split(":")[1]) for each in taken if each[:8] == "diagonal"
            ]
            times = [1e3 * taken[f"diagonal:{size}:split"] for size in sizes]
            panel.loglog(
                sizes, times, "o-", color=colour, ms=4, label="diagonal, split"
            )
            best = times.index(min(times))
            panel.plot(sizes[best], times[best], "o", ms=9, mfc="none", color=colour)
            panel.axhline(
                1e3 * taken["native"], color=theme.stock, ls="-", label="native"
            )
            panel.axhline(
                1e3 * taken["direct"], color=theme.stock, ls=":", label="direct"
            )
            panel.set_title(words(name), fontweight="bold")
            panel.set_ylabel("ms")
            panel.set_xticks(sizes, [str(size) for size in sizes])
            panel.minorticks_off()
            panel.yaxis.set_major_locator(LogLocator(10, (1, 3)))
            plain_milliseconds(panel.yaxis)
            panel.grid()
        panels[-1].set_xlabel("partition size (channels in a dense block)")
        handles, labels = panels[0].get_legend_handles_labels()
        legend = figure.legend(handles, labels, loc="outside upper left", ncols=3)
        legend.legend_handles[0].set_color(theme.ink)
        return figure

    return draw


def plain_milliseconds(axis) -> None:
    """Formats a logarithmic axis as 1, 10, 100 instead of powers."""
    axis.set_major_formatter(lambda value, place: f"{value:g}")


AXES = {
    "batch": "images in a batch",
    "channels": "channels",
    "pixels": "pixels of an image",
    "kernel": "taps of the kernel",
}


def growth_of(path: Path) -> Callable[[Theme], Figure]:
    """Figure of a file of `tuning.growth`: a panel for each axis."""

    def draw(theme: Theme) -> Figure:
        result = json.loads(path.read_text())
        figure = Figure(figsize=(WIDTH, 8.6), layout="constrained")
        panels = figure.subplots(len(AXES), 1)
        for panel, (axis, label) in zip(panels, AXES.items(), strict=True):
            points = result["axes"][axis]
            at = [each["at"] for each in points]
            for name, colour in zip(PASSES, theme.passes, strict=True):
                taken = [1e3 * each["seconds"][name] for each in points]
                panel.loglog(
                    at, taken, "o-", ms=3, lw=1.2, color=colour, label=words(name)
                )
            least = [1e3 * each["least"] for each in points]
            panel.loglog(at, least, "--", color=theme.ink, lw=1, label="roofline")
            panel.set_xlabel(label)
            panel.set_ylabel("ms")
            plain_milliseconds(panel.xaxis)
            plain_milliseconds(panel.yaxis)
            panel.minorticks_off()
            panel.grid()
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2)
        return figure

    return draw


def figures() -> dict[str, Callable[[Theme], Figure]]:
    """The function that draws each figure, by name."""
    kinds = [kind for kind in KINDS if problem_lines(kind)]
    growth = sorted(RESULTS.glob("growth-*.json"))
    sizes = sorted(RESULTS.glob("partition-sizes-*.json"))
    return {
        "idea": idea,
        "gain": gain,
        "blocks": blocks,
        "digits": digits,
        "models": models,
        **{f"roofline-{kind}": roofline_of(kind) for kind in kinds},
        **{path.stem: growth_of(path) for path in growth},
        **{path.stem: partition_sizes_of(path) for path in sizes},
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


if __name__ == "__main__":
    draw_all(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
