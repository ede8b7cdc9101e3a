"""`make docs`: the site builds strictly, and every public name is on it."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.extended


@pytest.fixture
def hooks(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(root / "tools" / "site")
    return importlib.import_module("hooks")


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_public_name_is_on_the_site(site: Path, hooks: ModuleType) -> None:
    assert len(hooks.MODULES) == 8
    for module in hooks.MODULES:
        page = (site / f"reference/{module}.html").read_text()
        for name in importlib.import_module(module).__all__:
            assert re.search(rf'<h\d id="{re.escape(module)}\.{name}"', page), f"{module}.{name}"


def test_signatures_have_types(site: Path) -> None:
    page = re.sub(r"<[^>]+>", "", (site / "reference/cgnrt.html").read_text())
    assert re.search(r"seed:\s+int\s+\|\s+None", page)


def test_every_command_is_on_the_site(site: Path) -> None:
    page = (site / "reference/command-cgnrt.html").read_text()
    for command in ("example", "sample", "generate", "serve", "audit"):
        assert f"usage: cgnrt {command}" in page


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link)\b[^>]*?(?:src|href)="(https?:[^"]+)"', page.read_text())
        assert loaded == [], page.name


def test_an_undocumented_module_or_name_fails(hooks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from cgnrt import shards

    monkeypatch.setattr(shards, "verify", lambda folder: [])
    with pytest.raises(hooks.PluginError, match=r"cgnrt\.shards\.verify has no docstring"):
        hooks.reference("cgnrt.shards")
    monkeypatch.setattr(shards, "__doc__", "")
    with pytest.raises(hooks.PluginError, match=r"cgnrt\.shards has no docstring"):
        hooks.reference("cgnrt.shards")


def test_examples_and_entries_of_docstrings_are_read(site: Path) -> None:
    page = (site / "reference/cgnrt.banks.html").read_text()
    shown = re.sub(r"<[^>]+>", "", page)
    assert 'kn">import</span> <span class="n">banks</span>' in page  # as Python
    assert "banks.from_plan(" in shown
    assert "store, quality" not in shown  # "store, quality: ..." are two arguments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Args:\n  a, b: x\n    more.\n  c: y.", "Args:\n  a: x\n    more.\n  b: x\n    more.\n  c: y."),
        ("Raises:\n  TypeError, ValueError: no.", "Raises:\n  TypeError: no.\n  ValueError: no.\n"),
        ("Args:\n  a: of b, c: both.\n", "Args:\n  a: of b, c: both.\n"),
    ],
)
def test_entries_of_several_names_are_split(hooks: ModuleType, text: str, expected: str) -> None:
    assert importlib.import_module("sections").with_single_entries(text) == expected


def test_a_link_out_of_the_site_fails(hooks: ModuleType) -> None:
    assert hooks.relinked("[a](../CONTRIBUTING.md#levels)", "docs/faq.md", "faq.md") == (
        "[a](project/contributing.md#levels)"
    )
    with pytest.raises(hooks.PluginError, match=r"docs/faq\.md links to \.\./Makefile"):
        hooks.relinked("[a](../Makefile)", "docs/faq.md", "faq.md")
