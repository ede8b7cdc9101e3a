"""Pages of the site that are made of something else: README and its neighbours, the public names, the commands' help.

Pages link to files of the checkout (`../CONTRIBUTING.md`). Such a file is a page of the site, and the link leads there.
"""

from __future__ import annotations

import argparse
import importlib
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
from sections import with_examples

ROOT = Path(__file__).resolve().parents[2]
# Files of the checkout, and the pages that they are.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "RELEASING.md": "project/releasing.md",
    "SECURITY.md": "project/security.md",
    "tests/cuda/emulator/README.md": "project/emulator.md",
}
SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").glob("*.py"))
PAGES |= {name: f"examples/{Path(name).stem}.md" for name in SCRIPTS}
NOTEBOOKS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks").glob("*.py"))
PAGES |= {name: f"notebooks/{Path(name).stem}.md" for name in NOTEBOOKS}
MODULES = (
    "cgnrt",
    "cgnrt.torch",
    "cgnrt.real",
    "cgnrt.shards",
    "cgnrt.banks",
    "cgnrt.ops",
    "cgnrt.cuda",
    "cgnrt_export",
)
COMMANDS = {"cgnrt": "cgnrt.cli", "cgnrt-train": "cgnrt_training.cli", "cgnrt-export": "cgnrt_export.cli"}
# Classes that a build without CUDA does not have; their docstrings are those of the stub, which a test asks for.
COMPILED = {"DeviceArray", "Event", "Graph", "PinnedBuffer", "Stream"}
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, *, config: Any) -> Files:
    for name, page in PAGES.items():
        text = (ROOT / name).read_text()
        if name in SCRIPTS:
            text = f"# {Path(name).name}\n\n```python\n{text}```\n"
        elif name in NOTEBOOKS:
            text = "\n\n".join(cells(text))
        files.append(File.generated(config, page, content=relinked(text, name, page)))
    for module in MODULES:
        files.append(File.generated(config, f"reference/{module}.md", content=reference(module)))
    for command, module in COMMANDS.items():
        content = "\n".join(command_help(command, module))
        files.append(File.generated(config, f"reference/command-{command}.md", content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    made = page.file.src_uri in PAGES.values() or page.file.src_uri.startswith("reference/")
    return markdown if made else relinked(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


def cells(notebook: str) -> Iterator[str]:
    """The cells of a notebook in jupytext's percent form, as Markdown."""
    for cell in re.split(r"^# %%", notebook, flags=re.M)[1:]:
        kind, _, body = cell.partition("\n")
        if kind.strip() == "[markdown]":
            yield re.sub(r"^# ?", "", body, flags=re.M).strip()
        else:
            yield f"```python\n{body.strip()}\n```"


def relinked(text: str, source: str, page: str) -> str:
    """A page whose links, from a file of the checkout to others, are those of the site."""

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[2]))
        uri = PAGES.get(target)
        if uri is None:
            if not target.startswith("docs/"):
                raise PluginError(f"{source} links to {found[2]}, which is not a page of the site")
            uri = target.removeprefix("docs/")
        return found[1] + posixpath.relpath(uri, posixpath.dirname(page) or ".") + found[3]

    pieces = re.split(r"(^```.*?^```)", text, flags=re.M | re.S)
    return "".join(piece if piece.startswith("```") else LINK.sub(link, piece) for piece in pieces)


def reference(name: str) -> str:
    """The page of a module: its text, and every name of its `__all__`, each of which must have a text."""
    module = importlib.import_module(name)
    text = (module.__doc__ or "").strip()
    if not text:
        raise PluginError(f"{name} has no docstring")
    for public in module.__all__:
        if public not in COMPILED and not getattr(module, public).__doc__:
            raise PluginError(f"{name}.{public} has no docstring")
    head = f"# {name}\n\n{with_examples(text)}\n"
    return head + "".join(f"\n::: {name}.{public}\n" for public in module.__all__)


def command_help(command: str, module: str) -> Iterator[str]:
    """The page of a command: what `--help` prints, for it and for each of its sub-commands."""
    parser = importlib.import_module(module)._parser()
    yield f"# {command}\n\nWhat `{command} --help` prints, and that of its sub-commands."
    yield from section(command, parser)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, found in action.choices.items():
                yield from section(f"{command} {name}", found)


def section(title: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f"\n## {title}\n\n```text\n{parser.format_help().rstrip()}\n```"
