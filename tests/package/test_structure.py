"""Imports: no circles, and only from a level to those below it. CONTRIBUTING.md has the levels."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = {"cgnrt": "python", "cgnrt_training": "training", "cgnrt_export": "export"}
SCRIPTS = "bench"
COMPILED = ("cgnrt._core", "cgnrt._cuda")  # csrc/, as Python sees it
BLOCK = re.compile(r"^```levels\n(.*?)^```", re.M | re.S)

Graph = dict[str, set[str]]  # from each module to those that it imports
Heights = dict[
    str, tuple[int, int]
]  # of each part of a package: the package's height, the part's height in it


def import_graph(folders: list[Path]) -> Graph:
    """Every import between the modules of some folders, also in functions and for types alone."""
    paths = {}
    for folder in folders:
        found = sorted(path for kind in ("*.py", "*.pyi") for path in folder.rglob(kind))
        assert found, folder
        paths.update({module_name(path.relative_to(folder)): path for path in found})
    graph: Graph = {}
    for name, path in paths.items():
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        # A script also sees the modules beside it.
        beside = f"{package}." if package and package.partition(".")[0] not in PACKAGES else ""
        graph[name] = set()
        for wanted in imports(ast.parse(path.read_text()), package):
            owner = wanted.rpartition(".")[0]  # `from a import b`: b is a module, or something in a
            candidates = (beside + wanted, beside + owner, wanted, owner)
            graph[name] |= {next((c for c in candidates if c in paths), name)} - {name}
    return graph


def module_name(path: Path) -> str:
    """The dotted name of a file, whose path is relative to where imports are looked up."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """The dotted names that a module of a package imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            above = parents[: len(parents) - node.level + 1] if node.level else []
            base = [*above, *([node.module] if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def circle(graph: Graph) -> list[str]:
    """The modules of one import circle; empty if there is no circle."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def heights_of(text: str) -> Heights:
    """The levels that a page has in a block of this form, lowest first:

    packages: csrc <- cgnrt
    cgnrt: errors <- plan, ops <- generator
    """
    (block,) = BLOCK.findall(text)
    lines = re.sub(r"\n\s+", " ", block).strip().splitlines()
    rows = {
        head.strip(): [[name.strip() for name in row.split(",")] for row in chain.split("<-")]
        for head, _, chain in (line.partition(":") for line in lines)
    }
    heights: Heights = {}
    for place, (package,) in enumerate(rows.pop("packages")):
        for height, row in enumerate(rows.pop(package, [[package]])):
            for name in row:
                part = name if name == package else f"{package}.{name}"
                assert part not in heights, f"{part} stands twice in the levels"
                heights[part] = place, height
    assert not rows, f"{set(rows)} is not among the packages"
    return heights


def part_of(module: str) -> str:
    """The part of its package that a module belongs to: the first two words of its name."""
    return "csrc" if module in COMPILED else ".".join(module.split(".")[:2])


def upward(graph: Graph, heights: Heights) -> list[str]:
    """The imports that do not lead to a lower level."""
    return [
        f"{module} imports {target}, expected a lower level than that of {part_of(module)}"
        for module, targets in sorted(graph.items())
        for target in sorted(targets)
        if part_of(module) != part_of(target) and heights[part_of(target)] >= heights[part_of(module)]
    ]


@pytest.fixture(scope="module")
def graph(root: Path) -> Graph:
    return import_graph([root / folder for folder in (*PACKAGES.values(), SCRIPTS)])


def test_no_import_circles(graph: Graph) -> None:
    assert circle(graph) == []


def test_every_part_has_a_level_and_imports_lower_ones(graph: Graph, root: Path) -> None:
    heights = heights_of((root / "CONTRIBUTING.md").read_text())
    packages = {name: found for name, found in graph.items() if name.partition(".")[0] in PACKAGES}
    assert set(heights) == {part_of(name) for name in packages} - set(PACKAGES) | (
        set(heights) & set(PACKAGES)
    )
    assert upward(packages, heights) == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package with two parts, and two scripts."""
    files = {
        "python/cgnrt/__init__.py": "",
        "python/cgnrt/_core.pyi": "",
        "python/cgnrt/low/__init__.py": "from cgnrt import _core",
        "python/cgnrt/low/a.py": "def f():\n    from cgnrt.low.b import x",
        "python/cgnrt/low/b.py": "from . import c",
        "python/cgnrt/low/c.py": "import numpy",
        "python/cgnrt/high.py": "import cgnrt.low.a\nfrom cgnrt.low import something",
        "bench/main.py": "from tools.one import x",
        "bench/tools/one.py": "import two",
        "bench/tools/two.py": "import main",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


LEVELS = "```levels\npackages: csrc <- cgnrt\ncgnrt: low\n  <- high <- cgnrt\n```\n"


def test_imports_are_found_wherever_they_stand(tree: Path) -> None:
    assert import_graph([tree / "python", tree / "bench"]) == {
        "cgnrt": set(),
        "cgnrt._core": set(),
        "cgnrt.low": {"cgnrt._core"},
        "cgnrt.low.a": {"cgnrt.low.b"},
        "cgnrt.low.b": {"cgnrt.low.c"},
        "cgnrt.low.c": set(),
        "cgnrt.high": {"cgnrt.low.a", "cgnrt.low"},
        "main": {"tools.one"},
        "tools.one": {"tools.two"},
        "tools.two": {"main"},
    }


def test_a_circle_is_found(tree: Path) -> None:
    assert set(circle(import_graph([tree / "bench"]))) == {"main", "tools.one", "tools.two"}
    (tree / "python/cgnrt/low/c.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from cgnrt.low import a"
    )
    assert set(circle(import_graph([tree / "python"]))) == {"cgnrt.low.a", "cgnrt.low.b", "cgnrt.low.c"}


def test_an_import_of_a_higher_level_is_found(tree: Path) -> None:
    heights = heights_of(LEVELS)
    assert heights == {"csrc": (0, 0), "cgnrt.low": (1, 0), "cgnrt.high": (1, 1), "cgnrt": (1, 2)}
    assert upward(import_graph([tree / "python"]), heights) == []
    (tree / "python/cgnrt/low/c.py").write_text("from cgnrt import Generator, high")
    assert upward(import_graph([tree / "python"]), heights) == [
        "cgnrt.low.c imports cgnrt, expected a lower level than that of cgnrt.low",
        "cgnrt.low.c imports cgnrt.high, expected a lower level than that of cgnrt.low",
    ]


def test_a_level_that_stands_twice_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"cgnrt\.low stands twice"):
        heights_of(LEVELS.replace("high", "low"))
