"""Plain English: phrases that need decoding do not come back into docstrings, messages, comments and pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KINDS = {".py", ".pyi", ".h", ".cc", ".cu", ".cuh", ".md", ".js", ".html", ".toml", ".txt"}
FOLDERS = ("bench", "csrc", "docs", "examples", "export", "notebooks", "python", "tests", "tools", "training")
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "README.md", "RELEASING.md", "SECURITY.md")
# Two messages of the compiled engine that say "expected none: ..." are quoted here.
LEFT = ("tests/runtime/test_deep_refusals.py",)
# Each phrase with what says it plainly. A space stands for any space, also one between two lines of a comment.
PHRASES = {
    r"(?<!here) (is|are|was|were) none\b": "no X is installed; X is missing",
    r"\bexpected none\b": "X is not supported; X must not be given",
    r"\bwhat (it|they) lacks?\b": "X does not support Y",
    r"\bbut (by|for)\b": "except; only",
    r"\bneither but\b": "only",
    r"\b(who but|but who)\b": "only",
    r"(?<!here) (is|are) no (?!longer\b)\w+": "is not a",
    r"\balone to say\b": "only X says",
    r"\b(unless|as) said\b": "by default",
    r"\bthat (is|are|was) there\b": "the existing X",
    r"\bnot as many\b": "different numbers of",
}
PATTERNS = {re.compile(phrase.replace(" ", r"(?:\s|#|//)+")): plain for phrase, plain in PHRASES.items()}


def hits(path: Path) -> list[str]:
    """The phrases of a file that need decoding, each with its line and a plain way to say it."""
    text = path.read_text()
    found = [(match.start(), match[0], plain) for p, plain in PATTERNS.items() for match in p.finditer(text)]
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return [
        f"{name}:{text.count(chr(10), 0, at) + 1}: {' '.join(phrase.split())!r}; plainly: {plain}"
        for at, phrase, plain in sorted(found)
    ]


def files(*names: str) -> list[Path]:
    """The text files at or under some paths, but not this one, which quotes the phrases."""
    paths = [
        p for name in names for p in ([ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"))
    ]
    return [p for p in sorted(paths) if p.suffix in KINDS and p != Path(__file__).resolve()]


@pytest.mark.parametrize(
    "name", [*FOLDERS, "CHANGELOG.md", "CONTRIBUTING.md", "README.md", "RELEASING.md", "SECURITY.md"]
)
def test_what_is_plain_stays_plain(name: str) -> None:
    found = [path for path in files(name) if str(path.relative_to(ROOT)) not in LEFT]
    assert found
    assert [hit for path in found for hit in hits(path)] == []


def test_phrases_are_found_across_lines(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Engines for cuda:0 are\n# none. There are none of these.\nThis is no plan.\n")
    assert [hit.partition(": ")[2] for hit in hits(page)] == [
        "'are # none'; plainly: no X is installed; X is missing",
        "'is no plan'; plainly: is not a",
    ]
