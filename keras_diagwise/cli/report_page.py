"""The page of `keras-diagwise report`, made of its figures: one file that needs no
other."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import math
import shlex
import string
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from keras_diagwise.cli.batch_size import SOURCES
from keras_diagwise.cli.decision_tables import duration, why
from keras_diagwise.cli.markup import Markup, element, joined
from keras_diagwise.cli.named_model import title
from keras_diagwise.decision import Outcome
from keras_diagwise.models.report import PASS_NAMES, milliseconds
from keras_diagwise.planning.source import PlanSource

FOLDER = Path(__file__).parent


def report_page(figures: dict) -> str:
    """The page as HTML.

    Args:
        figures: what `report_figures` returns, with `given`, the model as it was
            named, and `tune`, the command that measures it.
    """
    script, style, template = (
        (FOLDER / f"report_page.{kind}").read_text(encoding="utf-8")
        for kind in ("js", "css", "html")
    )
    digest = hashlib.sha256(script.encode()).digest()
    return string.Template(template).substitute(
        title=joined(f"{title(figures)}: keras-diagwise report"),
        # Only this script runs, whatever a name might bring along.
        script_hash=f"sha256-{base64.b64encode(digest).decode()}",
        style=style,
        script=script,
        content=element("main", *sections(figures)),
    )


def sections(figures: dict) -> Iterator[Markup]:
    """What stands on the page, from top to bottom."""
    yield from heading(figures)
    if figures["totals"]["measured"]:
        yield from totals_section(figures["totals"])
    yield from what_is_missing(figures)
    if figures["layers"]:
        yield from layers_section(figures["layers"])
    yield from left_alone_section(figures["left_alone"])
    yield from environment_section(figures["environment"])
    yield from words_section(figures)


def heading(figures: dict) -> Iterator[Markup]:
    here = figures["environment"]
    yield element("h1", title(figures), class_="model")
    yield element(
        "p",
        f"{figures['given']} in batches of {figures['batch_size']} "
        f"({SOURCES[figures['batch_size_is']]}), on {here['device_name']} "
        f"({here['device_kind']}, {here['cores']} cores), {here['backend']}, "
        f"{here['compiler_mode']}. Made by keras-diagwise {here['keras_diagwise']}, "
        f"{figures['made'][:16].replace('T', ' ')} UTC.",
        class_="soft",
    )


def totals_section(totals: dict) -> Iterator[Markup]:
    tiles = {
        "native": duration(totals["native_seconds"]),
        "chosen": duration(totals["seconds"]),
        "gain": gain_of(totals),
        "roofline": duration(totals["least"]),
        "layers measured": f"{totals['measured']} of {totals['layers']}",
    }
    yield element("h2", "All layers together")
    yield element(
        "dl",
        *(
            element("div", element("dt", name), element("dd", value))
            for name, value in tiles.items()
        ),
        class_="tiles",
    )
    passes = {name: each for name, each in totals["passes"].items() if each["seconds"]}
    scale = Scale.of(passes.values())
    yield legend(scale)
    yield element(
        "div",
        *(
            bars(name, each, scale, f"{change(each)}, {gain_of(each)}")
            for name, each in passes.items()
        ),
        class_="totals",
        style=f"--decades:{scale.decades}",
    )
    yield element(
        "p",
        "Sums of the passes of these layers, each timed by itself; the "
        "rest of the model's step is not in them. For the step of the whole model: ",
        element("code", "keras-diagwise benchmark"),
        ".",
        class_="soft",
    )


def legend(scale: Scale) -> Markup:
    """What the bars are, and their scale."""
    of_scale = (
        f"numbers in ms; bars logarithmic, {duration(scale.least)} to "
        f"{duration(scale.longest)}, a line for each ten times more"
    )
    words = {"native": "native", "chosen": "chosen", "roofline": "roofline"}
    entries = (element("span", word, class_=name) for name, word in words.items())
    return element(
        "p", *entries, element("span", of_scale, class_="scale"), class_="legend"
    )


def what_is_missing(figures: dict) -> Iterator[Markup]:
    """What was not measured, and the command that measures it."""
    totals = figures["totals"]
    if not totals["layers"]:
        yield element(
            "p",
            "No layer of this model can run by a plan. What is looked for are "
            "depthwise, separable and grouped convolutions.",
            class_="missing",
        )
    for reason, count in cant_be_measured(figures["layers"]).items():
        yield element("p", f"Can't be measured: {count}, {reason}.", class_="missing")
    if totals["missing"]:
        count = str(totals["measured"] or "None")
        yield element(
            "p",
            f"{count} of the {totals['layers']} layers measured for this machine, for "
            "this batch size and compiled in this way. To measure what is missing, and "
            "then make this page again:",
            class_="missing",
        )
        words = (
            element("span", shlex.quote(word), class_="word")
            for word in shlex.split(figures["tune"])
        )
        yield element("pre", element("code", *with_spaces(words)))


def cant_be_measured(layers: list[dict]) -> dict[str, str]:
    """How many layers can't be measured, by reason."""
    reasons = Counter(each["cant_be_measured"] for each in layers)
    del reasons[None]
    return {
        reason: f"{count} layer{'' if count == 1 else 's'}"
        for reason, count in reasons.items()
    }


def with_spaces(words: Iterable[Markup]) -> Iterator[object]:
    """Words of a command, none broken at a hyphen in it."""
    for i, word in enumerate(words):
        yield from (" ", word) if i else (word,)


def layers_section(layers: list[dict]) -> Iterator[Markup]:
    yield element("h2", "Layer by layer")
    scale = Scale.of(
        each
        for layer in layers
        if layer["is_measured_here"]
        for each in layer["passes"].values()
    )
    if any(each["is_measured_here"] for each in layers):
        yield legend(scale)
    yield element("button", "Unfold all", type="button", class_="all")
    heads = (
        sortable("layer", "name", "name"),
        element("th", "passes, ms", scope="col", class_="passes", role="columnheader"),
        sortable("native", "native", "number"),
        sortable("chosen", "chosen", "number"),
        sortable("gain", "gain", "number"),
        sortable("rung", "rung", "rung"),
    )
    yield element(
        "table",
        element("thead", element("tr", *heads, role="row"), role="rowgroup"),
        *(layer_rows(i, each, scale) for i, each in enumerate(layers)),
        class_="layers",
        style=f"--decades:{scale.decades}",
        role="table",
        aria_label="Layers",
    )


def sortable(label: str, key: str, kind: str) -> Markup:
    """The head of a column by which the table can be sorted."""
    return element(
        "th",
        element("button", label, type="button"),
        scope="col",
        role="columnheader",
        class_=kind,
        data_sort=key,
        aria_sort="none",
    )


def layer_rows(order: int, layer: dict, scale: Scale) -> Markup:
    """A layer: its row, and what is unfolded beneath it."""
    here = layer["is_measured_here"]
    native, chosen = layer["native_seconds"], layer["seconds"]
    gain = native / chosen if native and chosen else None
    target = f"details-{order}"
    name = element(
        "button",
        layer["path"],
        type="button",
        class_="unfold",
        aria_expanded="false",
        aria_controls=target,
    )
    beneath = f"{layer['stock_class']}, {layer['problem_text'] or 'unknown inputs'}"
    if here:
        passes = joined(
            *(
                bars(name, each, scale, change(each))
                for name, each in layer["passes"].items()
            )
        )
    else:
        passes = element("span", "not measured here", class_="soft")
    row = element(
        "tr",
        element("td", name, element("div", beneath, class_="beneath"), role="cell"),
        element(
            "td",
            passes,
            element("div", layer["plan_text"] or "plan unknown", class_="plan soft"),
            role="cell",
        ),
        number_cell("native", native and duration(native)),
        number_cell("chosen", chosen and duration(chosen)),
        number_cell("gain", gain and gain_of(layer)),
        element("td", layer["rung"], class_="rung", role="cell"),
        role="row",
    )
    details = element(
        "tr",
        element("td", *details_of(layer), colspan="6", role="cell"),
        id=target,
        class_="details",
        hidden=True,
        role="row",
    )
    return element(
        "tbody",
        row,
        details,
        role="rowgroup",
        data_order=order,
        data_name=layer["path"],
        data_native=native or "",
        data_chosen=chosen or "",
        data_gain=gain or "",
        data_rung=layer["rung"],
    )


def number_cell(label: str, text: str | None) -> Markup:
    """A number in the table of layers; the label shows where the head can't."""
    return element("td", text or "–", class_="number", role="cell", data_label=label)


@dataclasses.dataclass(frozen=True)
class Scale:
    """A logarithmic scale of times, on which those of native and of what is many times
    faster can both be seen.

    Attributes:
        least: where it begins, in seconds.
        longest: where it ends, whole decades later.
    """

    least: float
    longest: float

    @classmethod
    def of(cls, passes: Iterable[dict]) -> Scale:
        """The decades in which the times of passes are."""
        found = list(times_of(passes)) or [1e-3]
        first = math.floor(math.log10(min(found)))
        last = math.ceil(math.log10(max(found)))
        return cls(10.0**first, 10.0 ** max(last, first + 1))

    @property
    def decades(self) -> int:
        """How many decades it spans."""
        return round(math.log10(self.longest / self.least))

    def place(self, seconds: float) -> str:
        """Where a time is, in CSS's words."""
        share = math.log10(seconds / self.least) / self.decades
        return f"{100 * min(1.0, max(0.0, share)):.3g}%"


def times_of(passes: Iterable[dict]) -> Iterator[float]:
    """All the times of passes that are known."""
    names = ("native_seconds", "seconds", "least")
    return (each[name] for each in passes for name in names if each[name])


def bars(name: str, sums: dict, scale: Scale, text: str) -> Markup:
    """Native's time, that of what runs, and the roofline, on a common scale."""
    native, chosen, roofline = sums["native_seconds"], sums["seconds"], sums["least"]
    said = (
        f"{PASS_NAMES[name]}: native {milliseconds(native)} ms, chosen "
        f"{milliseconds(chosen)} ms, roofline {milliseconds(roofline)} ms"
    )
    track = element(
        "span",
        native and element("i", class_="native", style=f"width:{scale.place(native)}"),
        chosen and element("i", class_="chosen", style=f"width:{scale.place(chosen)}"),
        roofline
        and element("i", class_="roofline", style=f"left:{scale.place(roofline)}"),
        class_="track",
        role="img",
        aria_label=said,
        title=said,
    )
    return element(
        "div",
        element("span", PASS_NAMES[name]),
        track,
        element("span", text, class_="number"),
        class_="bars",
    )


def change(sums: dict) -> str:
    """Native's milliseconds, and those of what runs."""
    return f"{milliseconds(sums['native_seconds'])} → {milliseconds(sums['seconds'])}"


def details_of(layer: dict) -> Iterator[Markup]:
    """Where a layer's plan comes from, and every candidate of each pass."""
    source = PlanSource(layer["rung"])
    yield element("p", f"Rung: {source}. {sentence(source.description)}")
    if layer["rung"] != "decision" and layer["measured_problem_text"]:
        yield element("p", f"Below is what was measured for it: {measured_for(layer)}.")
    if not layer["passes"]:
        yield element("p", "There are no candidates to show.", class_="soft")
    for name, each in layer["passes"].items():
        runs = each["algorithm"] or "unknown"
        yield element("h3", f"{PASS_NAMES[name]}: {runs}")
        yield element(
            "p",
            f"Measured {each['measured'][:16].replace('T', ' ')} UTC; "
            f"roofline {duration(each['least']) if each['least'] else 'unknown'}.",
            class_="soft",
        )
        if each["overruled"]:
            yield element("p", f"Back to native: {each['overruled']}.")
        yield candidates_table(each)


def measured_for(layer: dict) -> str:
    """For which problem what speaks for a layer was measured."""
    same = layer["measured_problem_text"] == layer["problem_text"]
    return "the same problem" if same else layer["measured_problem_text"]


def sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def candidates_table(measured: dict) -> Markup:
    """The candidates of a pass, the fastest first; then those without a time."""
    heads = (
        element("th", "candidate", scope="col"),
        element("th", "time", scope="col", class_="number"),
        element("th", "gain", scope="col", class_="number"),
        element("th", "at least", scope="col", class_="number wide"),
        element("th", "error", scope="col", class_="number"),
    )
    rows = (
        candidate_row(each, measured["native_seconds"], measured["algorithm"])
        for each in measured["candidates"]
    )
    return element(
        "table",
        element("thead", element("tr", *heads)),
        element("tbody", *rows),
        class_="candidates",
    )


def candidate_row(values: dict, native: float | None, runs: str | None) -> Markup:
    outcome = Outcome(**{key: each for key, each in values.items() if key != "name"})
    seconds = outcome.seconds
    is_run = values["name"] == runs
    name = joined(
        element("code", values["name"]),
        element("span", " runs", class_="runs-mark") if is_run else None,
    )
    texts = (
        duration(seconds) if seconds else "–",
        times(native, seconds),
        times(outcome.gain, 1.0),
        "–" if outcome.error is None else f"{outcome.error:.1e}",
    )
    kinds = ("number", "number", "number wide", "number")
    row = element(
        "tr",
        element("td", name),
        *(element("td", t, class_=k) for t, k in zip(texts, kinds, strict=True)),
        class_="runs" if is_run else None,
    )
    if not outcome.failure:
        return row
    reason = element("td", why(outcome), colspan=1 + len(kinds))
    return joined(row, element("tr", reason, class_="why"))


def gain_of(sums: dict) -> str:
    """How many times faster than native what runs is."""
    return times(sums["native_seconds"], sums["seconds"])


def times(native: float | None, seconds: float | None) -> str:
    """A ratio of two times, to three digits."""
    if not native or not seconds:
        return "–"
    ratio = native / seconds
    digits = 2 if ratio < 10 else 1 if ratio < 100 else 0
    return f"{ratio:.{digits}f}×"


def left_alone_section(left: list[dict]) -> Iterator[Markup]:
    """The layers that no plan runs, by reason."""
    if not left:
        return
    yield element("h2", "Left alone")
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in left:
        reasons.setdefault((each["layer"], each["why"]), []).append(each["path"])
    for (layer, reason), paths in reasons.items():
        yield element(
            "details",
            element("summary", f"{len(paths)} {layer}: {reason}"),
            element("p", ", ".join(paths), class_="soft"),
        )


def environment_section(here: dict) -> Iterator[Markup]:
    yield element("h2", "Environment")
    facts = {
        "device": f"{here['device_name']}, {here['device_kind']}, "
        f"{here['cores']} cores",
        "backend": f"{here['backend']}, {here['compiler_mode']}",
        "Keras": here["keras"],
        "keras-diagwise": here["keras_diagwise"],
        "Python": here["python"],
        "system": here["system"],
        **{name: each for name, each in here["versions"].items() if each},
        "flags": ", ".join(f"{name} {each}" for name, each in here["flags"].items()),
    }
    pairs = (
        joined(element("dt", name), element("dd", value or "none"))
        for name, value in facts.items()
    )
    yield element("dl", *pairs, class_="facts")


def words_section(figures: dict) -> Iterator[Markup]:
    """What the words of the page mean."""
    sources = dict.fromkeys(PlanSource(each["rung"]) for each in figures["layers"])
    words = {
        "native": "what Keras calls today, in each pass",
        "chosen": "what the layers run now, pass by pass",
        "roofline": "the least possible time by what this device can do: the least "
        "bytes over the bandwidth of a copy, or the arithmetic over the rate of a "
        "matrix product, whichever is larger",
        "gain": "native's median time over that of what runs; at least: the 95 % bound "
        "of the ratios round by round, which noise can put above it",
        "error": "the largest against float64, in units of the result's root mean "
        "square",
        "rung": "where a plan comes from",
        **{f"rung {source}": source.description for source in sources},
    }
    yield element("h2", "Words")
    pairs = (
        joined(element("dt", word), element("dd", said)) for word, said in words.items()
    )
    yield element("dl", *pairs, class_="facts")
