"""`keras-diagwise decisions`: shows, shares and clears decisions measured here."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from keras_diagwise.cli.errors import (
    INTERRUPTED,
    UserError,
    end,
    one_line_errors,
    user_errors,
)
from keras_diagwise.cli.examples import examples
from keras_diagwise.cli.import_keras import import_keras
from keras_diagwise.cli.options import AsJson, Debug
from keras_diagwise.cli.progress import Progress

app = typer.Typer(
    name="decisions",
    rich_markup_mode="rich",
    invoke_without_command=True,
    epilog=examples("decisions"),
)


@app.callback()
def decisions_command(context: typer.Context) -> None:
    """Show, share and clear what was measured on this machine."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list", epilog=examples("decisions list"))
def list_decisions(as_json: AsJson = False, debug: Debug = False) -> None:
    """List all decisions, a table for each environment."""
    with opened(debug) as decisions:
        from keras_diagwise.cli import decision_tables

        document = decisions.document()
        if as_json:
            typer.echo(json.dumps(decision_tables.figures(document), indent=1))
        else:
            decision_tables.show_all(document, where(decisions))


@app.command("show", epilog=examples("decisions show"))
def show(
    problem: Annotated[
        str,
        typer.Argument(
            metavar="PROBLEM",
            help="The beginning of its digest, or a part of its text, as `list` "
            "prints them; an x stands for × too.",
        ),
    ],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show all candidates of each pass: times, errors, and why some have none."""
    with opened(debug) as decisions:
        from keras_diagwise.cli import decision_tables

        document = decision_tables.matching(decisions.document(), problem)
        if not len(document):
            raise UserError(
                f"No decision in {where(decisions)} is of a problem {problem!r}. "
                "Those that are: keras-diagwise decisions list"
            )
        if as_json:
            typer.echo(document.to_text(), nl=False)
        else:
            decision_tables.show_candidates(document)


@app.command("export", epilog=examples("decisions export"))
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write all decisions to one JSON file."""
    with opened(debug) as decisions:
        count = decisions.export(file)
        text = f"{counted(count)} written to {file}"
        tell(as_json, text, written=count, file=str(file))


@app.command("contribute", epilog=examples("decisions contribute"))
def contribute(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write what was measured on this device, for others who have the same.

    It prints the text of an issue to attach the file to. Both name the device, its
    cores, versions, and the shapes of layers: nothing else of a model, and nothing of
    you.
    """
    with opened(debug):
        from keras_diagwise.cli import contribution
        from keras_diagwise.models.decisions import measured_here, write_document

        document = measured_here()
        if not len(document):
            raise UserError(
                "Nothing was measured on this device yet. Measure a model first: "
                "keras-diagwise tune"
            )
        write_document(document, file)
        text = contribution.text(document, file.name)
        tell(as_json, text, written=len(document), file=str(file), issue=text)


@app.command("import", epilog=examples("decisions import"))
def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A file that `export` wrote.",
        ),
    ],
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Compute every candidate here first; what is wrong does not serve.",
        ),
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Add the decisions of a file to those that are kept."""
    with opened(debug) as decisions:
        changed = decisions.import_(file, verify=verify)
        text = f"{counted(changed)} new or changed in {where(decisions)}"
        tell(as_json, text, changed=changed, location=where(decisions))


@app.command("path", epilog=examples("decisions path"))
def path(as_json: AsJson = False, debug: Debug = False) -> None:
    """Print where decisions are kept."""
    with one_line_errors(debug), user_errors(debug):
        # Without Keras the answer is immediate.
        from keras_diagwise.storage.locations import shown, standardize_location

        location = shown(standardize_location(None))
        tell(as_json, location, location=location)


@app.command("clear", epilog=examples("decisions clear"))
def clear(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Remove all decisions."""
    with opened(debug) as decisions:
        count = len(decisions.document())
        question = f"Remove {counted(count)} from {where(decisions)}?"
        if count and not yes and not confirmed(question, as_json):
            end("nothing was removed; --yes removes without asking", INTERRUPTED)
        removed = decisions.clear()
        text = f"{counted(removed)} removed from {where(decisions)}"
        tell(as_json, text, removed=removed, location=where(decisions))


def tell(as_json: bool, text: str, **figures: object) -> None:
    """Prints the outcome, as a line or as JSON."""
    typer.echo(json.dumps(figures, indent=1) if as_json else text)


@contextlib.contextmanager
def opened(debug: bool) -> Iterator:
    """`keras_diagwise.decisions`, for a command that fails with one line."""
    with one_line_errors(debug):
        with Progress() as progress, progress.phase("loading Keras"):
            import_keras()
        with user_errors(debug):
            from keras_diagwise.models.decisions import decisions

            yield decisions


def where(decisions) -> str:
    """Location of the decisions, without secrets."""
    from keras_diagwise.storage.locations import shown

    return shown(decisions.location)


def confirmed(question: str, as_json: bool) -> bool:
    """Whether the user confirms; asks on stderr if stdout is for JSON."""
    try:
        return typer.confirm(question, err=as_json)
    except typer.Abort:  # nobody to answer
        typer.echo(err=True)
        return False


def counted(count: int) -> str:
    return f"{count:,} decision{'' if count == 1 else 's'}"
