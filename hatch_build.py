"""What the package's metadata has of its repository: README's links, and an address.

The variable `GITHUB_REPOSITORY`, "owner/name", names it; GitHub's workflows set it, and
`GITHUB_REF_NAME`. Without it README's links stay as they are.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE = re.compile(r"\]\((?![a-z]+:|#)(?P<path>[^)]+)\)")
PAPER = "https://arxiv.org/abs/1803.09926"


class RepositoryHook(MetadataHookInterface):
    """Adds what depends on the address of the repository."""

    def update(self, metadata: dict) -> None:
        """Sets the fields that pyproject.toml names as dynamic."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["urls"] = {"Paper": PAPER}
        repository = os.environ.get("GITHUB_REPOSITORY")
        if repository:
            address = f"https://github.com/{repository}"
            revision = os.environ.get("GITHUB_REF_NAME", "main")
            metadata["urls"]["Source"] = address
            text = with_absolute_links(text, f"{address}/blob/{revision}")
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def with_absolute_links(text: str, address: str) -> str:
    """A text in Markdown, whose relative links begin at an address."""
    return RELATIVE.sub(rf"]({address}/\g<path>)", text)
