"""Runs the documentation's tutorial and keeps its output.

    python -m docs.build.tutorial

Writes tuning/results/tutorial-<backend>-<compiler mode>.json with the output of each
Python block. `python -m docs.build` puts it below the blocks.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).parents[1] / "tutorial.md"

BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text[^\n]*\n.*?^```\n)?",
    re.MULTILINE | re.DOTALL,
)
"""A block of Python, with the output below it if there is any."""


def digest(code: str) -> str:
    """A short name, unique to this code."""
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def with_outputs(text: str, outputs: dict[str, str]) -> str:
    """The page, with each block's output below it.

    Raises:
        KeyError: if a block has changed since it was run.
    """

    def shown(block: re.Match) -> str:
        printed = outputs[digest(block["code"])].rstrip()
        code = f"```python\n{block['code']}```\n"
        return f'{code}\n```text title="prints"\n{printed}\n```\n' if printed else code

    return BLOCK.sub(shown, text)


def run() -> dict[str, str]:
    """Runs the blocks. Returns the output of each, by its digest."""
    names: dict = {"__name__": "__main__"}
    outputs = {}
    for block in BLOCK.finditer(PAGE.read_text()):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(block["code"], str(PAGE), "exec"), names)
        lines = (line.rstrip() for line in printed.getvalue().splitlines())
        outputs[digest(block["code"])] = "\n".join(lines)
    return outputs


@contextlib.contextmanager
def inside(folder: str) -> Iterator[None]:
    """`contextlib.chdir`, which Python 3.10 lacks."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def main() -> None:
    os.environ["COLUMNS"] = "76"  # width of the tables

    import keras

    from keras_diagwise import decisions
    from keras_diagwise.models.environment import environment_of
    from tuning.records import results_name, write

    environment = environment_of(keras.Sequential([keras.Input((4,))]))
    with tempfile.TemporaryDirectory() as folder, inside(folder):
        decisions.location = "decisions"
        outputs = run()
    result = {
        "date": datetime.date.today().isoformat(),
        "environment": environment.to_dict(),
        "load_average": round(os.getloadavg()[0], 1),
        "outputs": outputs,
    }
    write(results_name("tutorial", environment), result)


if __name__ == "__main__":
    main()
