"""Whether the built site describes every public name.

    python -m tests.docs.site SITE

The reference names an object by its path, and a path can lead elsewhere: `convert` is a
function and a module. So the built page must have the first line of its docstring.
"""

import html
import re
import sys
from pathlib import Path

import keras_diagwise


def text_of(page: Path) -> str:
    """A page's text, without tags."""
    text = re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))
    return " ".join(html.unescape(text).split())


def first_sentence(name: str) -> str:
    """The first sentence of a public name's docstring, as the page shows it."""
    paragraph = getattr(keras_diagwise, name).__doc__.strip().split("\n\n")[0]
    return " ".join(paragraph.replace("`", "").split())


def main(site: Path) -> None:
    text = text_of(site / "api" / "index.html")
    names = keras_diagwise.__all__
    missing = [name for name in names if first_sentence(name) not in text]
    if missing:
        sys.exit(f"The reference does not describe {', '.join(missing)}")
    print(f"The reference describes all {len(names)} public names.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
