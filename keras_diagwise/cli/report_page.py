"""The page of `keras-diagwise report`, made of its figures: one file that needs no
other."""

from __future__ import annotations

import base64
import hashlib
import string
from collections.abc import Iterator
from pathlib import Path

from keras_diagwise.cli.decision_tables import duration, times, why
from keras_diagwise.cli.markup import Markup, element, joined
from keras_diagwise.models.report import PASS_NAMES, milliseconds
from keras_diagwise.planning.decision import Outcome

FOLDER = Path(__file__).parent

RUNGS = {
    "layer": "the plan was given on the layer",
    "decision": "measured for this very problem on this machine",
    "other versions": "measured for this very problem on this device, under other "
    "versions",
    "nearest": "the nearest problem that was measured on this machine speaks for it",
    "other device": "measured on another device of the kind; comes with the package",
    "native": "nothing measured speaks for it: stock's own operation",
    "called in no graph": "no graph of layers tells the shape of its inputs",
}
"""Where a plan comes from, in words."""

BATCH_SIZES = {
    "given": "as asked for",
    "measured": "for which it was measured",
    "default": "Keras's default: none was given or measured",
}


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
        title=joined(f"{figures['model']}: keras-diagwise report"),
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
    yield element("h1", figures["model"], class_="model")
    yield element(
        "p",
        f"{figures['given']} in batches of {figures['batch_size']} "
        f"({BATCH_SIZES[figures['batch_size_is']]}), on {here['device_name']} "
        f"({here['device_kind']}, {here['cores']} cores), {here['backend']}, "
        f"{here['compiler_mode']}. Made by keras-diagwise {here['keras_diagwise']}, "
        f"{figures['made'][:16].replace('T', ' ')} UTC.",
        class_="soft",
    )


def totals_section(totals: dict) -> Iterator[Markup]:
    tiles = {
        "native": duration(totals["native_seconds"]),
        "as chosen": duration(totals["seconds"]),
        "gain": ratio(totals["native_seconds"], totals["seconds"]),
        "floor": duration(totals["least"]),
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
    yield legend()
    passes = {name: each for name, each in totals["passes"].items() if each["seconds"]}
    longest = longest_of(passes.values())
    yield element(
        "div",
        *(bars(name, each, longest, gain=True) for name, each in passes.items()),
        class_="totals",
    )
    yield element(
        "p",
        "Sums of the passes of these layers, each timed by itself on this machine; the "
        "rest of the model's step is not in them. For the step of the whole model: ",
        element("code", "keras-diagwise benchmark"),
        ".",
        class_="soft",
    )


def legend() -> Markup:
    """What the bars are."""
    words = {"native": "native", "chosen": "as chosen", "floor": "floor"}
    entries = (element("span", word, class_=name) for name, word in words.items())
    return element("p", *entries, class_="legend")


def what_is_missing(figures: dict) -> Iterator[Markup]:
    """What was not measured, and the command that measures it."""
    totals = figures["totals"]
    missing = totals["layers"] - totals["measured"]
    if not totals["layers"]:
        yield element(
            "p",
            "No layer of this model can run by a plan. What is looked for are "
            "depthwise, separable and grouped convolutions.",
            class_="missing",
        )
    elif missing:
        whole = missing == totals["layers"]
        count = "None of the" if whole else f"{missing} of the"
        yield element(
            "p",
            f"{count} {totals['layers']} layers {'was' if missing == 1 else 'were'} "
            "measured on this machine in this way. To measure, and then make this page "
            "again:",
            class_="missing",
        )
        yield element("pre", element("code", figures["tune"]))


def layers_section(layers: list[dict]) -> Iterator[Markup]:
    yield element("h2", "Layer by layer")
    if any(each["is_measured_here"] for each in layers):
        yield legend()
    yield element("button", "Unfold all", type="button", class_="all")
    heads = (
        sortable("layer", "name", "name"),
        element("th", "passes, ms", scope="col", class_="passes", role="columnheader"),
        sortable("native", "native", "number"),
        sortable("chosen", "chosen", "number"),
        sortable("gain", "gain", "number"),
        sortable("rung", "rung", "rung"),
    )
    longest = longest_of(
        each
        for layer in layers
        if layer["is_measured_here"]
        for each in layer["passes"].values()
    )
    yield element(
        "table",
        element("thead", element("tr", *heads, role="row"), role="rowgroup"),
        *(layer_rows(i, each, longest) for i, each in enumerate(layers)),
        class_="layers",
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


def layer_rows(order: int, layer: dict, longest: float) -> Markup:
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
            *(bars(name, each, longest) for name, each in layer["passes"].items())
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
        number_cell("gain", gain and times(gain)),
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


def bars(name: str, sums: dict, longest: float, gain: bool = False) -> Markup:
    """Native's time, that of what runs, and the floor, on a common scale."""
    native, chosen, least = sums["native_seconds"], sums["seconds"], sums["least"]
    text = f"{milliseconds(native)} → {milliseconds(chosen)}"
    if gain and native and chosen:
        text = f"{text} ms, {ratio(native, chosen)}"
    said = f"{PASS_NAMES[name]}: native {text}; floor {milliseconds(least)} ms"
    return element(
        "div",
        element("span", PASS_NAMES[name]),
        element(
            "span",
            bar("native", native, longest),
            bar("chosen", chosen, longest),
            mark("floor", least, longest),
            class_="track",
            role="img",
            aria_label=said,
            title=said,
        ),
        element("span", text, class_="number"),
        class_="bars",
    )


def bar(kind: str, seconds: float | None, longest: float) -> Markup | None:
    """A bar as long as a time is."""
    if not seconds:
        return None
    return element("i", class_=kind, style=f"width:{share(seconds, longest)}")


def mark(kind: str, seconds: float | None, longest: float) -> Markup | None:
    """A mark at the place of a time."""
    if not seconds:
        return None
    return element("i", class_=kind, style=f"left:{share(seconds, longest)}")


def share(seconds: float, longest: float) -> str:
    """A time's part of the longest, in CSS's words."""
    return f"{100 * min(1.0, seconds / longest):.3g}%"


def longest_of(passes) -> float:
    """The longest time of any pass, by which bars are scaled."""
    found = (
        each[name] or 0.0
        for each in passes
        for name in ("native_seconds", "seconds", "least")
    )
    return max(found, default=0.0) or 1.0


def details_of(layer: dict) -> Iterator[Markup]:
    """Where a layer's plan comes from, and every candidate of each pass."""
    yield element("p", f"Rung: {layer['rung']}. {sentence(RUNGS[layer['rung']])}")
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
            f"floor {duration(each['least']) if each['least'] else 'unknown'}.",
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
        element("div", why(outcome), class_="soft") if outcome.failure else None,
    )
    texts = (
        duration(seconds) if seconds else "–",
        ratio(native, seconds),
        times(outcome.gain) or "–",
        "–" if outcome.error is None else f"{outcome.error:.1e}",
    )
    kinds = ("number", "number", "number wide", "number")
    return element(
        "tr",
        element("td", name),
        *(element("td", t, class_=k) for t, k in zip(texts, kinds, strict=True)),
        class_="runs" if is_run else None,
    )


def ratio(native: float | None, seconds: float | None) -> str:
    """How many times faster than native."""
    return times(native / seconds) if native and seconds else "–"


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
    rungs = dict.fromkeys(each["rung"] for each in figures["layers"])
    words = {
        "native": "what Keras calls today, in each pass",
        "as chosen": "what the layers run now, pass by pass",
        "floor": "the least possible time by what this device can do: the least bytes "
        "over the bandwidth of a copy, or the arithmetic over the rate of a matrix "
        "product, whichever is larger",
        "gain": "native's time over that of what runs; at least: by the 95 % bound",
        "error": "the largest against float64, in units of the result's root mean "
        "square",
        "rung": "where a plan comes from",
        **{f"rung {rung}": RUNGS[rung] for rung in rungs},
    }
    yield element("h2", "Words")
    pairs = (
        joined(element("dt", word), element("dd", said)) for word, said in words.items()
    )
    yield element("dl", *pairs, class_="facts")
