"""What the pages tell a user to paste: Python blocks run, commands have the options and plans that they name.

The Python blocks of a page run one after the other in one namespace, in an empty folder beside the checkout's plans.
A block that begins with `# needs: ...` says what it needs (files, packages, a server), and is only compiled.
"""

from __future__ import annotations

import argparse
import itertools
import re
from pathlib import Path

import pytest
from page_commands import PAGES, ROOT, commands

import cgnrt.cli
import cgnrt_export.cli
import cgnrt_training.cli

PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
COMMANDS = {
    "cgnrt": cgnrt.cli._parser,
    "cgnrt-train": cgnrt_training.cli._parser,
    "cgnrt-export": cgnrt_export.cli._parser,
}
# Plans that no command of the page writes; the page says what they are.
OWN_PLANS = {
    "sheets.md": {"cgn.plan"},  # of ImageNet
    "data-sets.md": {"/shared/cgn.plan"},  # on the machines of a cluster
    "tensorrt.md": {"cgn.plan"},
}


def with_python(page: Path) -> bool:
    return PYTHON.search(page.read_text()) is not None


@pytest.mark.parametrize("page", [page for page in PAGES if with_python(page)], ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plans").symlink_to(ROOT / "plans")
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    text = page.read_text()
    for block in PYTHON.finditer(text):
        line = text.count("\n", 0, block.start(1))
        code = compile("\n" * line + block[1], str(page), "exec")  # errors have the page's lines
        if not block[1].startswith("# needs: "):
            exec(code, namespace)


def test_python_is_in_blocks_of_its_own() -> None:
    """Not in indented lines, which would not be run."""
    fences = re.compile(r"^```.*?^```", re.M | re.S)
    found = [
        f"{page.name}: {line.strip()}"
        for page in PAGES
        for line in fences.sub("", page.read_text()).splitlines()
        if re.match(
            r" {4,}(from [\w.]+ import |import \w|\w+ = \w+\.\w+\(|for \w+ in .*:|with .*:|print\()", line
        )
    ]
    assert found == []


def parser_of(words: list[str]) -> argparse.ArgumentParser:
    """The parser of a command line's sub-command."""
    parser = COMMANDS[words[0]]()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found = action.choices.get(words[1])
            assert isinstance(found, argparse.ArgumentParser), words
            return found
    return parser


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_options_and_plans_that_they_name(page: Path) -> None:
    wrong: list[str] = []
    made = set(OWN_PLANS.get(page.name, ()))
    for words in commands(page.read_text()):
        known = parser_of(words)._option_string_actions
        options = [word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]
        wrong += [f"{' '.join(words)}: {option}" for option in options if option not in known]
        for option, word in itertools.pairwise(words):
            if not word.endswith(".plan"):
                continue
            if option in ("-o", "--output"):
                made.add(word)
            elif word not in made and not (ROOT / word).exists():
                wrong.append(f"{' '.join(words)}: {word}")
    assert wrong == []


def test_commands_are_found() -> None:
    text = "Prose.\n\n    cgnrt inspect a.plan\n\n`cgnrt x`\ncgnrt-train mnist \\\n    --data D  # where\n"
    assert list(commands(text)) == [["cgnrt", "inspect", "a.plan"], ["cgnrt-train", "mnist", "--data", "D"]]
