"""`make release-check` names what is missing; what is for public machines names what exists here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from release_check import problems

FILES = ("pyproject.toml", "python/cgnrt/__init__.py", "CITATION.cff", "CHANGELOG.md")
TARGET = re.compile(r"^([a-z][\w-]*):", re.M)


@pytest.fixture
def ready(root: Path, tmp_path: Path) -> Path:
    """The files of a release on a day."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(f"## [Unreleased]\n\n## [{cgnrt_version(root)}] - 2026-12-31\n")
    citation = (root / "CITATION.cff").read_text()
    (tmp_path / "CITATION.cff").write_text(
        re.sub(r"^date-released: .+\n", "", citation, flags=re.M) + "date-released: 2026-12-31\n"
    )
    return tmp_path


def cgnrt_version(root: Path) -> str:
    found = re.search(r'^version = "(.+)"$', (root / "pyproject.toml").read_text(), re.M)
    assert found
    return found[1]


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_release_that_is_ready_passes(ready: Path) -> None:
    assert problems(ready) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "found"),
    [
        (
            "python/cgnrt/__init__.py",
            '__version__ = "',
            '__version__ = "9',
            "__init__.py has another version",
        ),
        ("CITATION.cff", "\nversion: ", "\nversion: 9", "CITATION.cff has another version"),
        ("CITATION.cff", "date-released: 2026-12-31", "", "CITATION.cff has no 'date-released: 2026-12-31'"),
        ("CHANGELOG.md", "] - 2026-12-31", "]", "CHANGELOG.md has no heading"),
    ],
)
def test_what_is_missing_is_named(ready: Path, name: str, old: str, new: str, found: str) -> None:
    change(ready / name, old, new)
    (problem,) = problems(ready)
    assert found in problem


def steps(root: Path) -> dict[str, list[str]]:
    """The shell commands of each job of the workflows."""
    found = {}
    for path in sorted((root / ".github/workflows").glob("*.yml")):
        jobs = yaml.safe_load(path.read_text())["jobs"]
        for name, job in jobs.items():
            assert all(("run" in step) != ("uses" in step) for step in job["steps"]), f"{path.name}: {name}"
            found[f"{path.stem}/{name}"] = [step["run"] for step in job["steps"] if "run" in step]
    return found


def test_workflows_run_what_exists(root: Path) -> None:
    """Make targets and files; and a shell reads each command."""
    targets = set(TARGET.findall((root / "Makefile").read_text()))
    commands = [command for job in steps(root).values() for command in job]
    named = {
        name for command in commands for name in re.findall(r"\bmake ([a-z][\w-]*)(?: [A-Z]|$)", command)
    }
    assert {"lint", "test", "test-all", "test-clang", "test-aarch64", "docs"} == named
    assert named <= targets
    files = {name for command in commands for name in re.findall(r"(?:tools|tests)/\S+\.py", command)}
    assert [name for name in files if not (root / name).exists()] == []
    for command in commands:
        subprocess.run(["bash", "-n"], input=command, text=True, check=True)


def test_the_targets_of_tests_name_files_that_exist(root: Path) -> None:
    recipes = (root / "Makefile").read_text()
    named = re.findall(r"tests/[\w/]+\.py", recipes)
    prefixed = re.search(r"addprefix (tests/ops/test_),(.+?)\)", recipes)
    assert prefixed
    named += [prefixed[1] + name for name in prefixed[2].split()]
    assert len(named) > 5
    assert [name for name in named if not (root / name).exists()] == []


def test_workflows_test_the_pythons_of_the_classifiers(root: Path) -> None:
    project = (root / "pyproject.toml").read_text()
    matrix = re.search(r"python: (\[.*?\])", (root / ".github/workflows/ci.yml").read_text())
    assert matrix
    assert re.findall(r"3\.\d+", matrix[1]) == re.findall(r"Python :: (3\.\d+)", project)


def test_the_container_serves_by_options_that_exist(root: Path) -> None:
    from cgnrt.cli import _parser

    text = (root / "Dockerfile").read_text()
    command = re.search(r'^CMD \["(.+)"\]$', text, re.M)
    example = re.search(r"cgnrt (example -o \S+)", text)
    assert command
    assert example
    served = _parser().parse_args(command[1].split('", "'))
    assert served.host == "0.0.0.0"
    assert served.plan == _parser().parse_args(example[1].split()).output


def test_the_changelog_keeps_its_form(root: Path) -> None:
    text = (root / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.+)$", text, re.M)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])
    kinds = set(re.findall(r"^### (.+)$", text, re.M))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_readme_begins_with_few_words(root: Path) -> None:
    """At most 60 before the first picture, and two commands right after it."""
    before, _, after = (root / "README.md").read_text().partition("![")
    assert len(before.split()) <= 60
    commands = re.match(r".*?\)\n\n```sh\n(make .+\n)(make .+\n)```", after, re.S)
    assert commands
    assert len(after[: commands.end()].split("```sh")[0].splitlines()) == 2
