"""README and docs as a user pastes them: Python blocks and commands, in their order."""

from __future__ import annotations

import ast
import re
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

# A fenced block, or lines that are indented by four spaces and stand after an empty line, as Markdown has it.
_BLOCK = re.compile(
    r"^```(?P<language>\w*)\n(?P<fenced>.*?)^```$|(?<=\n\n)(?P<indented>(?:    [^\n]*\n|\n+(?=    ))+)",
    re.M | re.S,
)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
# Without a folder in PATH every program is "not found": its words are printed instead. Loops, variables, quotes and
# comments are the shell's own.
_RECORD = r"""command_not_found_handle() { printf '%s\0' "$@"; printf '\036\0'; }
PATH=/dev/null
"""


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
      kind: "python"; "sh": commands; "text": anything else.
      line: number of its first line on the page.
    """

    kind: str
    text: str
    line: int


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page's text."""
    for found in _BLOCK.finditer(page):
        fenced = found["fenced"] is not None
        text = found["fenced"] if fenced else textwrap.dedent(found["indented"])
        kind = found["language"] if fenced else ("sh" if begins_with_a_command(text) else "text")
        line = page.count("\n", 0, found.start("fenced" if fenced else "indented")) + 1
        yield Block(kind if kind in ("python", "sh") else "text", text, line)


def begins_with_a_command(text: str) -> bool:
    return (
        re.match(
            r"(?:[A-Z_]+=\S+ )?(?:cgnrt|cgnrt-train|cgnrt-export|python|pip|make|torchrun|mkdir|cp|curl|docker) ",
            text,
        )
        is not None
    )


def looks_like_python(text: str) -> bool:
    """Whether a block of no language is code: it compiles, and has a call or an import."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Call | ast.Import | ast.ImportFrom) for node in ast.walk(tree))


def spans(text: str) -> Iterator[str]:
    """What stands between backquotes, outside of blocks."""
    for found in _SPAN.finditer(_BLOCK.sub("", text)):
        yield " ".join(found[1].split())


def commands(text: str) -> list[list[str]]:
    """The words of each command of a block, as bash gives them to the programs."""
    done = subprocess.run(
        ["bash", "-c", _RECORD + text], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    assert done.stderr == "", done.stderr
    words: list[str] = done.stdout.split("\0")[:-1]
    found: list[list[str]] = [[]]
    for word in words:
        if word == "\036":
            found.append([])
        else:
            found[-1].append(word)
    return found[:-1]
