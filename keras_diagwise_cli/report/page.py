"""The page of `keras-diagwise report`: computes the values of its template."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import math
import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import jinja2

from keras_diagwise.decision import Outcome
from keras_diagwise.durations import duration, milliseconds
from keras_diagwise.planning.source import PlanSource
from keras_diagwise.problem import PASS_NAMES
from keras_diagwise.storage.plain_files import replacement
from keras_diagwise_cli.batch_size import SOURCES
from keras_diagwise_cli.decisions.tables import why
from keras_diagwise_cli.model_input import title
from keras_diagwise_cli.terminal.console import counted, printable
from keras_diagwise_cli.terminal.tables import ratio

FOLDER = Path(__file__).parent

BARS = {"native": "native_seconds", "chosen": "seconds", "roofline": "least"}
"""Bars of a pass, with the keys of their times in the figures."""


def write_page(target: str, figures: dict) -> None:
    """Writes the page atomically."""
    with replacement(target, report_page(figures).encode()) as replace:
        replace()


def report_page(figures: dict) -> str:
    """The page as self-contained HTML.

    Args:
        figures: result of `report_figures`, with `given`, the model argument, and
            `tune`, the command that tunes it.
    """
    script, style = (
        (FOLDER / f"page.{kind}").read_text(encoding="utf-8") for kind in ("js", "css")
    )
    digest = hashlib.sha256(script.encode()).digest()
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        finalize=without_control_characters,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("page.html").render(
        page_values(figures),
        style=style,
        script=script,
        # Only this script may run, whatever a name contains.
        script_hash=f"sha256-{base64.b64encode(digest).decode()}",
    )


def without_control_characters(value: object) -> object:
    """A template value before escaping, without control characters.

    Names come from models and files and can contain anything. HTML stays as it is.
    """
    return value if hasattr(value, "__html__") else printable(str(value))


def page_values(figures: dict) -> dict:
    """The figures, with texts and scales for the template."""
    layers = figures["layers"]
    scale = Scale.of(
        each
        for layer in layers
        if layer["is_measured_here"]
        for each in layer["passes"].values()
    )
    flags = figures["environment"]["flags"]
    return {
        **figures,
        "title": title(figures),
        "batch_size_said": SOURCES[figures["batch_size_is"]],
        "made": minute(figures["made"]),
        "totals": totals_values(figures["totals"]),
        "cant_be_measured": cant_be_measured(layers),
        "tune": [shlex.quote(word) for word in shlex.split(figures["tune"])],
        "scale": scale,
        "layers": [layer_values(each, scale) for each in layers],
        "left_alone": by_reason(figures["left_alone"]),
        "flags": ", ".join(f"{name} {value}" for name, value in flags.items()),
        "sources": list(dict.fromkeys(PlanSource(each["rung"]) for each in layers)),
    }


def totals_values(totals: dict) -> dict:
    """Totals over all layers, with the bars of each pass that has times."""
    passes = {name: each for name, each in totals["passes"].items() if each["seconds"]}
    scale = Scale.of(passes.values())
    return {
        **totals,
        **texts(totals),
        "scale": scale,
        "passes": [bars(name, each, scale) for name, each in passes.items()],
    }


def layer_values(layer: dict, scale: Scale) -> dict:
    """A layer's row in the table, and its details."""
    native, chosen = layer["native_seconds"], layer["seconds"]
    description = PlanSource(layer["rung"]).description
    passes = layer["passes"].items()
    return {
        **layer,
        **texts(layer),
        "ratio": native / chosen if native and chosen else None,
        "rung_said": f"{description[:1].upper()}{description[1:]}.",
        "measured_for": measured_for(layer),
        "passes": [pass_values(name, each, scale) for name, each in passes],
    }


def measured_for(layer: dict) -> str | None:
    """The problem whose decision the details show, unless it is the layer's own."""
    measured = layer["measured_problem_text"]
    if layer["rung"] == PlanSource.DECISION or not measured:
        return None
    return "the same problem" if measured == layer["problem_text"] else measured


def pass_values(name: str, measured: dict, scale: Scale) -> dict:
    """A pass of a layer: its bars and its candidates."""
    candidates = measured["candidates"]
    return {
        **measured,
        **bars(name, measured, scale),
        "measured": minute(measured["measured"]),
        "roofline": known(measured["least"], "unknown"),
        "candidates": [candidate_values(measured, **each) for each in candidates],
    }


def candidate_values(measured: dict, name: str, **fields) -> dict:
    """A candidate of a pass: its measurements, or the reason for none."""
    outcome = Outcome(**fields)
    return {
        "name": name,
        "runs": name == measured["algorithm"],
        "time": known(outcome.seconds),
        "gain": times(measured["native_seconds"], outcome.seconds),
        "at_least": ratio(outcome.gain) or "–",
        "error": "–" if outcome.error is None else f"{outcome.error:.1e}",
        "why": outcome.failure and why(outcome),
    }


@dataclasses.dataclass(frozen=True)
class Scale:
    """A logarithmic scale of times.

    The chosen algorithm can be many times faster than native, and both must be visible.

    Attributes:
        least: start of the scale, in seconds.
        longest: end of the scale, whole decades later.
    """

    least: float
    longest: float

    @classmethod
    def of(cls, passes: Iterable[dict]) -> Scale:
        """The scale of whole decades that contains all known times of passes."""
        found = [each[key] for each in passes for key in BARS.values() if each[key]]
        first = math.floor(math.log10(min(found, default=1e-3)))
        last = math.ceil(math.log10(max(found, default=1e-3)))
        return cls(10.0**first, 10.0 ** max(last, first + 1))

    @property
    def decades(self) -> int:
        """Number of decades."""
        return round(math.log10(self.longest / self.least))

    def place(self, seconds: float) -> str:
        """Position of a time, as a CSS length."""
        share = math.log10(seconds / self.least) / self.decades
        return f"{100 * min(1.0, max(0.0, share)):.3g}%"

    def __str__(self) -> str:
        return f"{duration(self.least)} to {duration(self.longest)}"


def bars(name: str, sums: dict, scale: Scale) -> dict:
    """The bars of a pass with known times, and their texts."""
    numbers = {bar: milliseconds(sums[key] or None) for bar, key in BARS.items()}
    said = ", ".join(f"{bar} {number} ms" for bar, number in numbers.items())
    return {
        "name": PASS_NAMES[name],
        "said": f"{PASS_NAMES[name]}: {said}",
        "places": {bar: scale.place(sums[k]) for bar, k in BARS.items() if sums[k]},
        "change": f"{numbers['native']} → {numbers['chosen']}",
        "gain": gain_of(sums),
    }


def texts(sums: dict) -> dict[str, str]:
    """Times and gain of one layer, or of all, as text."""
    return {
        **{bar: known(sums[key]) for bar, key in BARS.items()},
        "gain": gain_of(sums),
    }


def gain_of(sums: dict) -> str:
    """Speedup of the chosen algorithms over native, as text."""
    return times(sums["native_seconds"], sums["seconds"])


def times(native: float | None, seconds: float | None) -> str:
    """Ratio of two times as text."""
    return ratio(native / seconds) if native and seconds else "–"


def known(seconds: float | None, otherwise: str = "–") -> str:
    """A time as text, or `otherwise` if unknown."""
    return duration(seconds) if seconds else otherwise


def minute(moment: str) -> str:
    """Date and minute of an ISO 8601 timestamp."""
    return moment[:16].replace("T", " ")


def cant_be_measured(layers: list[dict]) -> dict[str, str]:
    """Number of layers that can't be measured, by reason, as text."""
    reasons = Counter(each["cant_be_measured"] for each in layers)
    del reasons[None]
    return {reason: counted(count, "layer") for reason, count in reasons.items()}


def by_reason(left_alone: list[dict]) -> dict[str, list[str]]:
    """Paths of the layers left alone, by class and reason."""
    reasons: dict[str, list[str]] = {}
    for each in left_alone:
        reasons.setdefault(f"{each['layer']}: {each['why']}", []).append(each["path"])
    return reasons
