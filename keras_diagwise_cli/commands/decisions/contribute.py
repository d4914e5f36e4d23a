"""`keras-diagwise decisions contribute`: writes this device's decisions for others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_diagwise_cli.commands.decisions import group
from keras_diagwise_cli.errors import UserError, one_line_errors, user_errors
from keras_diagwise_cli.examples import examples
from keras_diagwise_cli.loading import load_package
from keras_diagwise_cli.options import AsJson
from keras_diagwise_cli.terminal.console import printable
from keras_diagwise_cli.terminal.output import print_outcome

if TYPE_CHECKING:
    from keras_diagwise.storage.document import Document

EXAMPLES = examples(
    (
        "keras-diagwise decisions contribute decisions.json",
        "on a device for which the package ships no decisions",
    ),
)


@group.command("contribute", epilog=EXAMPLES)
@one_line_errors
def contribute(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    as_json: AsJson = False,
) -> None:
    """Write this device's decisions to a file, for others who have the same device.

    It also prints the text of an issue, to attach the file to. Both contain the
    device's name and cores, versions, and the shapes of layers; nothing else about
    your model, and nothing about you.
    """
    load_package()
    from keras_diagwise.models.decisions import measured_here, write_document

    with user_errors():
        document = measured_here()
        if not len(document):
            raise UserError(
                "Nothing has been measured on this device yet. Measure a model first: "
                "keras-diagwise tune"
            )
        write_document(document, file)
    text = issue_text(document, file.name)
    print_outcome(as_json, text, written=len(document), file=str(file), issue=text)


def issue_text(document: Document, name: str) -> str:
    """The issue, in Markdown.

    Args:
        document: decisions measured on one device.
        name: name of the attached file.
    """
    return "\n".join(printable(line) for line in issue_lines(document, name))


def issue_lines(document: Document, name: str) -> Iterator[str]:
    """Lines of the issue: a title, the file, and its contents."""
    from keras_diagwise.planning.planner import shipped_document

    first = document.environments()[0]
    yield f"Decisions for {first.device}"
    yield ""
    yield f"Attached: {name}, written by `keras-diagwise decisions contribute`."
    yield ""
    yield "| environment | problems | not yet in the package |"
    yield "| --- | ---: | ---: |"
    shipped = shipped_document()
    for environment, problems in document.entries.items():
        known = shipped.entries.get(environment, {})
        new = sum(problem not in known for problem in problems)
        yield f"| {environment} | {len(problems)} | {new} |"
