"""Generates the documentation's pages and figures from results.

    python -m docs.build [--check]

Writes docs/results.md, docs/compatibility.md, docs/devices.md, docs/figures, the
notebook docs/quickstart.ipynb, and the tutorial's output into docs/tutorial.md.
`--check` writes nothing, and fails if a file would change.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import jinja2

from docs.build import compatibility, devices, figures, notebook, results, tutorial
from docs.build.measurements import read

DOCS = Path(__file__).parents[1]

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)

PAGES = {
    "results.md": results.values,
    "compatibility.md": compatibility.values,
    "devices.md": devices.values,
}
"""The function that gives the values of each page's template."""


def texts() -> dict[str, str]:
    """The text of each generated file, by name."""
    return {
        **{
            name: TEMPLATES.get_template(f"{name}.j2").render(values())
            for name, values in PAGES.items()
        },
        "tutorial.md": tutorial.with_outputs(
            tutorial.PAGE.read_text(), read("tutorial-jax-xla.json")["outputs"]
        ),
        "quickstart.ipynb": notebook.notebook_of(DOCS / "quickstart.md"),
    }


def write_all(folder: Path) -> None:
    """Writes the pages and the figures into a folder."""
    figures.draw_all(folder / "figures")
    for name, text in texts().items():
        (folder / name).write_text(text)


def differences(made: Path, kept: Path) -> list[str]:
    """Files that differ from those made, and figures that are not made."""
    names = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    left = {f"figures/{path.name}" for path in (kept / "figures").glob("*")}
    different = (
        name
        for name in names
        if not (kept / name).exists()
        or (kept / name).read_bytes() != (made / name).read_bytes()
    )
    return sorted({*different, *left - names})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        write_all(DOCS)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_all(Path(folder))
        different = differences(Path(folder), DOCS)
    if different:
        sys.exit(f"Not as `python -m docs.build` makes them: {', '.join(different)}")


if __name__ == "__main__":
    main()
