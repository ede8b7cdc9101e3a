"""The pages that tell a user what to paste, and the commands on them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text: str) -> Iterator[list[str]]:
    """The commands of cgnrt on a page, as a shell cuts them: in fenced blocks and in indented ones."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.splitlines():
        found = re.match(r"\s*(?:[A-Z_]+=\S+ )?((?:cgnrt|cgnrt-train|cgnrt-export) .+)", line)
        # Prose that begins with a command's name has it in backquotes.
        if found and "`" not in line and "|" not in line:
            yield shlex.split(found[1], comments=True)
