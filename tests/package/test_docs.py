"""What the documents and the sources point at exists: files, headings, make targets."""

from __future__ import annotations

import ast
import itertools
import pkgutil
import re
from pathlib import Path

import pytest

PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "RELEASING.md", "SECURITY.md")
SOURCES = ("python", "csrc", "export", "training", "bench", "examples", "tests")
FENCE = re.compile(r"^```.*?^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CITED = re.compile(r"\bdocs/[\w./-]*\w\.\w+")
MAKE = re.compile(r"^make ([a-z][\w-]*)|`make ([a-z][\w-]*)", re.M)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
DOTTED = re.compile(r"(?<![\w./-])cgnrt(?:_training|_export)?(?:\.[A-Za-z_]\w*)+(?![\w/-])")
TARGET = re.compile(r"^([a-z][\w-]*):", re.M)


def pages(root: Path) -> list[Path]:
    found = [root / name for name in PAGES] + sorted((root / "docs").rglob("*.md"))
    assert len(found) > len(PAGES)
    return found


def sources(root: Path) -> list[Path]:
    kinds = {".py", ".pyi", ".h", ".cc", ".cu", ".cuh", ".toml"}
    return [p for folder in SOURCES for p in sorted((root / folder).rglob("*")) if p.suffix in kinds]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_relative_links_lead_somewhere(root: Path) -> None:
    broken, count = [], 0
    for page in pages(root):
        for link in LINK.findall(FENCE.sub("", page.read_text())):
            if re.match(r"[a-z]+:", link):
                continue
            count += 1
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.relative_to(root)}: {link}")
    assert count
    assert broken == []


def test_pages_read_alike_on_the_site_and_elsewhere(root: Path) -> None:
    """The site's Markdown wants four spaces before what is in an entry of a list, and an empty line before a list."""
    odd = []
    for page in pages(root):
        lines = FENCE.sub("", page.read_text()).splitlines()
        for above, line in itertools.pairwise(["", *lines]):
            begins = re.match(r"(?:[-*] |\d+\. |>)", line) and above.strip()
            if re.match(r" {1,3}```", line) or (begins and not re.match(r"[-*] |\d+\. |>| ", above)):
                odd.append(f"{page.name}: {line}")
    assert odd == []


def test_cited_documents_exist(root: Path) -> None:
    cited = [
        (path, name)
        for path in [*pages(root), root / "Makefile", root / "CMakeLists.txt", *sources(root)]
        for name in CITED.findall(path.read_text())
    ]
    assert cited
    assert [f"{path.relative_to(root)}: {name}" for path, name in cited if not (root / name).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_exist(root: Path, page: str) -> None:
    named = {first or second for first, second in MAKE.findall((root / page).read_text())}
    assert {"demo", "test"} <= named
    assert named - set(TARGET.findall((root / "Makefile").read_text())) == set()


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, or what one can be asked for."""
    try:
        pkgutil.resolve_name(dotted)
    except (ImportError, AttributeError):
        return False
    return True


def test_dotted_names_exist(root: Path) -> None:
    cited = {(page.name, name) for page in pages(root) for name in DOTTED.findall(page.read_text())}
    assert len(cited) > 20
    assert sorted(f"{page}: {name}" for page, name in cited if not exists(name)) == []


def test_examples_import_what_exists(root: Path) -> None:
    missing, count = [], 0
    for page in pages(root):
        for block in PYTHON.findall(page.read_text()):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cgnrt"):
                    names = [f"{node.module}.{alias.name}" for alias in node.names]
                    count += len(names)
                    missing += [f"{page.name}: {name}" for name in names if not exists(name)]
    assert count
    assert missing == []
