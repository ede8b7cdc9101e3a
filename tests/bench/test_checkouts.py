"""What compares two states of the code: source lines, modules that run, start-up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Module = Callable[[str], ModuleType]

PYTHON = '''"""A module.

Two lines here, and a blank one.
"""

NAME = "# not a comment"


def double(x: int) -> int:
    """Twice x."""
    # Why not shift?
    return 2 * x  # it is clearer
'''
CXX = """// Why.
/* More
   of it. */
int x = 1;  // one
const char* url = "https://example.org/*";
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one module, one C++ file, a test and a file that is ignored."""
    files = {
        "python/cgnrt/plan/onnx/a.py": PYTHON,
        "csrc/ops/b.cc": CXX,
        "tests/test_a.py": "assert True\n",
        "build/c.cc": "int y;\n",
        ".gitignore": "/build/\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def test_lines_count_source_files_without_tests_comments_and_docstrings(
    module: Module, checkout: Path
) -> None:
    assert module("lines").count_files(checkout) == {
        "csrc/ops/b.cc": ("C++", 5, 2),
        "python/cgnrt/plan/onnx/a.py": ("Python", 8, 3),
    }


def test_lines_are_summed_by_folder_and_language(module: Module, checkout: Path) -> None:
    lines = module("lines")
    rows = lines.summed(lines.count_files(checkout), lines.folder_of)
    assert [(row["folder"], row["language"], row["files"]) for row in rows] == [
        ("csrc/ops", "C++", 1),
        ("python/cgnrt/plan", "Python", 1),
    ]


def test_lines_are_compared_by_top_folder(module: Module) -> None:
    lines = module("lines")
    now = {"python/a.py": ("Python", 10, 5)}
    then = {"python/a.py": ("Python", 12, 10), "csrc/b.cc": ("C++", 3, 2)}
    rows = {row["folder"]: (row["code against"], row["code"]) for row in lines.compared(now, then)}
    assert rows == {"csrc": (2, 0), "python": (10, 5), "all": (12, 5)}


def test_a_folder_without_cgnrt_is_refused(module: Module, checkout: Path) -> None:
    with pytest.raises(SystemExit, match=r"cgnrt cannot be imported from .* Run `make demo` there first"):
        module("checkouts").Checkout.find(checkout)


def test_modules_that_run_are_found_and_those_that_are_only_imported_are_not(
    module: Module, root: Path, demo_plan: Path
) -> None:
    found = module("modules").traced(root, demo_plan)
    assert {"generator.py", "sampling.py", "backends/native/backend.py", "plan/reader.py"} <= set(
        found["modules"]
    )
    assert "ops.py" in found["sample"]
    assert not [name for name in found["modules"] if name.startswith(("auditing/", "torch/"))]
    assert len(found["modules"]) < found["imported"]


def test_start_up_against_another_checkout(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "startup.json"
    command = [
        sys.executable,
        root / "bench" / "startup.py",
        "--against",
        root,
        "--rounds",
        "1",
        "--json",
        target,
    ]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(target.read_text())["rows"]
    assert [(row["plan"], row["stage"]) for row in rows] == [
        (plan, stage)
        for plan in ("double-colored", "small_cgn")
        for stage in ("import and first batch", "import cgnrt", "open and first batch")
    ]
    assert all(row["against_ms"] > 0 and row["cpu this_ms"] > 0 for row in rows)


def test_rates_against_another_checkout(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "rates.json"
    options = ["--rounds", "1", "--images", "64", "--json", target]
    command = [sys.executable, root / "bench" / "rates.py", root, *options]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(target.read_text())["rows"]
    assert [row["case"] for row in rows] == ["reuse 1", "pool, reuse 16"]
    assert all(row["images/s"] > 0 for row in rows)
