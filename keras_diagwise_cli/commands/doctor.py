"""`keras-diagwise doctor`: checks backend, device, store, tuner and algorithms."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from keras_diagwise_cli.commands import app
from keras_diagwise_cli.diagnosis.finding import (
    Finding,
    found,
    no_backend,
    record,
    show,
    versions,
    worst,
)
from keras_diagwise_cli.errors import UserError, one_line_errors
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.loading import load_package
from keras_diagwise_cli.options import AsJson, Debug
from keras_diagwise_cli.terminal.output import print_json
from keras_diagwise_cli.terminal.progress import Progress

EXAMPLES = examples(
    ("keras-diagwise doctor", "check everything, in about half a minute"),
    ("keras-diagwise doctor --json", "the findings as JSON"),
)


@app.command("doctor", epilog=EXAMPLES)
@one_line_errors
def doctor(as_json: AsJson = False, debug: Debug = False) -> None:
    """Check the installation: backend, device, store, tuner and algorithms.

    Run it when something is wrong, and paste its output into an issue.

    No password in a URL is printed. The exit code is 1 if there is an error.
    """
    findings = list(all_findings(debug))
    if as_json:
        print_json(record(findings))
    else:
        show(findings)
    raise typer.Exit(worst(findings) == "error")


def all_findings(debug: bool) -> Iterator[Finding]:
    """Every finding, in the order shown.

    Args:
        debug: whether to let the error through if Keras can't be imported.
    """
    yield versions()
    try:
        load_package()
    except UserError as error:
        if debug:
            raise
        yield no_backend(error)
        return
    with Progress() as progress:
        yield from configured(progress)
        yield from computed(progress)


def configured(progress: Progress) -> Iterator[Finding]:
    """Findings on what is set and stored."""
    from keras_diagwise_cli.diagnosis import configuration

    yield found("variables", configuration.variables)
    yield found("backend", configuration.backend)
    for name in ("on_miss", "precision"):
        yield found(name, configuration.setting, name)
    store = found("store", configuration.store)
    yield store
    if store.values:  # else there is no store
        with progress.phase("reading decisions"):
            yield from configuration.decisions()
    yield found("shipped", configuration.shipped)


def computed(progress: Progress) -> Iterator[Finding]:
    """Findings on what a child process and the algorithms compute."""
    from keras_diagwise_cli.diagnosis import computation

    with progress.phase("starting a process"):
        tuner = found("tuner", computation.tuner)
    yield tuner
    is_isolated = tuner.state == "ok"
    with progress.phase("checking algorithms", total=1) as advance:
        yield found("algorithms", computation.algorithms, is_isolated, advance)
    if is_isolated:
        with progress.phase("timing huge pages"):
            yield found("memory", computation.memory)
