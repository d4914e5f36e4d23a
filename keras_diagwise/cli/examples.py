"""Examples shown below the help of each command."""

from __future__ import annotations

EXAMPLES = {
    "": [
        (
            "keras-diagwise demo",
            "train on scans of digits, about five minutes on two cores",
        ),
        (
            "keras-diagwise tune MobileNetV2 --image-size 96 --batch-size 16",
            "measure what a model needs on this machine, and keep it",
        ),
        (
            "keras-diagwise benchmark model.keras --batch-size 32",
            "its training step and prediction, stock against converted",
        ),
        (
            "keras-diagwise report model.keras -o report.html",
            "a page about a model on this machine: what each layer runs, and why",
        ),
        ("keras-diagwise decisions list", "what was measured on this machine"),
        (
            "keras-diagwise import net.cfg net.weights -o model.keras",
            "a model of Darknet as one of Keras",
        ),
        ("keras-diagwise doctor", "what is wrong, when something is not as expected"),
        ("KERAS_BACKEND=torch keras-diagwise demo", "on another backend"),
    ],
    "demo": [
        (
            "keras-diagwise demo",
            "train on scans of digits, about five minutes on two cores",
        ),
        (
            "keras-diagwise demo --images my_photos --image-size 160",
            "the same on your own images, a subfolder for each class",
        ),
        (
            "keras-diagwise demo --plan direct --json > figures.json",
            "another plan, and the figures for a program",
        ),
        (
            "keras-diagwise demo --steps 5 --seconds 0",
            "a short one: a few steps of both, and no training after them",
        ),
    ],
    "decisions contribute": [
        (
            "keras-diagwise decisions contribute decisions.json",
            "for a device of which no decisions come with the package",
        ),
    ],
    "tune": [
        (
            "keras-diagwise tune MobileNetV2 --image-size 96 --batch-size 16",
            "a model of keras.applications",
        ),
        (
            "keras-diagwise tune model.keras --batch-size 32 --batch-size 64",
            "your own, at two batch sizes",
        ),
        (
            "keras-diagwise tune model.keras --batch-size 32 --budget 5m",
            "stop after five minutes; run it again to go on",
        ),
        (
            "keras-diagwise tune model.keras --batch-size 32 --json > report.json",
            "the report for a program",
        ),
    ],
    "benchmark": [
        (
            "keras-diagwise benchmark MobileNetV2 --image-size 96 --batch-size 16",
            "a model of keras.applications",
        ),
        (
            "keras-diagwise benchmark model.keras --json > benchmark.json",
            "your own, at the batch size that was tuned for",
        ),
    ],
    "report": [
        (
            "keras-diagwise report model.keras -o report.html",
            "after `tune`: a page to open in a browser, or to send to someone",
        ),
        (
            "keras-diagwise report MobileNetV2 --image-size 96 --batch-size 16 "
            "-o report.html",
            "a model of keras.applications",
        ),
        (
            "keras-diagwise report model.keras --json > report.json",
            "the same for a program",
        ),
    ],
    "import": [
        (
            "keras-diagwise import net.cfg net.weights -o model.keras",
            "a model of Darknet, to load by keras.models.load_model",
        ),
        (
            "keras-diagwise import net.cfg net.weights -o model.keras --convert",
            "the same, its layers run by plans",
        ),
        (
            "keras-diagwise import net-symbol.json net-0000.params --image-size 96 "
            "-o model.keras",
            "a classifier of MXNet",
        ),
    ],
    "export": [
        (
            "keras-diagwise export model.keras --to net.weights",
            "for Darknet; net.cfg, which it was imported from, is beside it",
        ),
        (
            "keras-diagwise export model.keras --to trained.weights "
            "--structure net.cfg",
            "the same under another name",
        ),
    ],
    "doctor": [
        ("keras-diagwise doctor", "look at everything, in about half a minute"),
        ("keras-diagwise doctor --json", "the same for a program"),
    ],
    "decisions": [
        ("keras-diagwise decisions list", "what was measured on this machine"),
        (
            "keras-diagwise decisions export decisions.json",
            "to take it to machines of the same kind",
        ),
    ],
    "decisions list": [
        (
            "keras-diagwise decisions list",
            "by environment: the plan, what it gains, when measured",
        ),
        ("keras-diagwise decisions list --json", "the same for a program"),
    ],
    "decisions show": [
        (
            "keras-diagwise decisions show 8x28x28",
            "all problems of 8 images of 28×28 pixels",
        ),
        ("keras-diagwise decisions show e3727", "the one whose digest begins so"),
    ],
    "decisions export": [
        (
            "keras-diagwise decisions export decisions.json",
            "to take them to machines of the same kind",
        )
    ],
    "decisions import": [
        (
            "keras-diagwise decisions import decisions.json",
            "what was measured here stays, unless the file knows more or is later",
        )
    ],
    "decisions path": [
        ("keras-diagwise decisions path", "a folder, or the URL of one")
    ],
    "decisions clear": [
        (
            "keras-diagwise decisions clear",
            "asks first; what comes with the package stays",
        ),
        ("keras-diagwise decisions clear --yes", "does not ask"),
    ],
}
"""By command: command lines, each with a description."""

EXIT_CODES = (
    "[bold]Exit codes[/bold]\n0: done. 1: `doctor` found an error, or something "
    "unexpected happened.\n2: what you can mend; one line says how. 130: interrupted."
)


def examples(command: str) -> str:
    """A command's examples, in typer's markup."""
    parts = [f"{typed}\n[dim]{does}[/dim]" for typed, does in EXAMPLES[command]]
    last = () if command else (EXIT_CODES,)
    return "\n\n".join(["[bold]Examples[/bold]", *parts, *last])
