"""Source lines without tests, by folder and language: how much there is to read and to maintain.

`lines` are those that are not blank; `code` leaves out comments and docstrings, too.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from report import ROOT, print_table, write_json

Files = dict[str, tuple[str, int, int]]  # by path: language, lines, lines of code

_C_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/|(\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')", re.S)
_HASH_COMMENT = re.compile(r"#[^\n]*|(\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')")
_HTML_COMMENT = re.compile(r"<!--.*?-->()", re.S)
_PACKAGES = ("python/cgnrt", "training/cgnrt_training", "export/cgnrt_export")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, nargs="?", default=ROOT)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another one, to compare with")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()

    files = count_files(arguments.checkout)
    rows = summed(files, folder_of, lambda _: "all")
    print_table(f"Source lines without tests in {arguments.checkout}", rows)
    result: dict[str, Any] = {"rows": rows}
    if arguments.against:
        result["against"] = compared(files, count_files(arguments.against))
        print_table(f"Against {arguments.against}", result["against"])
    write_json("lines", result, arguments.json)


def count_files(checkout: Path) -> Files:
    """Count each source file of a checkout that git knows or does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout
    found = {}
    for name in sorted(set(listed.split("\0"))):
        path = PurePosixPath(name)
        language = LANGUAGES.get(path.name) or LANGUAGES.get(path.suffix)
        if language and path.parts[0] != "tests" and (checkout / path).is_file():
            text = (checkout / path).read_text()
            found[name] = (language, lines_of(text), lines_of(CODE[language](text)))
    return found


def lines_of(text: str) -> int:
    """Lines that are not blank."""
    return sum(1 for line in text.splitlines() if line.strip())


def folder_of(name: str) -> str:
    """The folder that a file is counted with: two levels of the tree, packages one more."""
    folders = PurePosixPath(name).parts[:-1]
    depth = 3 if name.startswith(_PACKAGES) else 2
    return "/".join(folders[:depth]) or "."


def summed(files: Files, *groups: Callable[[str], str]) -> list[dict[str, Any]]:
    """A row for each language in each folder; a group gives the folder that a file is counted with."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for group in groups:
        for name, (language, lines, code) in files.items():
            counts.setdefault((group(name), language), Counter()).update(files=1, lines=lines, code=code)
    return [{"folder": f, "language": language, **count} for (f, language), count in sorted(counts.items())]


def compared(files: Files, others: Files) -> list[dict[str, Any]]:
    """A row for each top folder, and for all: lines and code of the other checkout and of this one."""
    top = {name: name.partition("/")[0] if "/" in name else "." for name in files | others}
    rows = []
    for folder in (*sorted(set(top.values())), "all"):
        then, now = (
            [sum(found[n][k] for n in found if folder in (top[n], "all")) for k in (1, 2)]
            for found in (others, files)
        )
        row = {"folder": folder, "lines against": then[0], "lines": now[0]}
        row |= {"code against": then[1], "code": now[1], "ratio": now[1] / then[1] if then[1] else ""}
        rows.append(row)
    return rows


def _python_code(text: str) -> str:
    """Without docstrings and comments."""
    lines = text.splitlines()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            first, last = node.body[0].lineno, node.body[0].end_lineno or 0
            lines[first - 1 : last] = [""] * (last - first + 1)
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


def _without(comment: re.Pattern[str]) -> Callable[[str], str]:
    """Cuts comments out; what the pattern's group holds (a string) stays."""
    return lambda text: comment.sub(lambda found: found[1] or "", text)


LANGUAGES = {
    ".py": "Python",
    ".pyi": "Python",
    ".h": "C++",
    ".cc": "C++",
    ".cu": "CUDA",
    ".cuh": "CUDA",
    ".proto": "Protocol Buffers",
    ".js": "JavaScript",
    ".css": "CSS",
    ".html": "HTML",
    ".cmake": "CMake",
    "CMakeLists.txt": "CMake",
    "Makefile": "Make",
}
CODE: dict[str, Callable[[str], str]] = {
    "Python": _python_code,
    "C++": _without(_C_COMMENT),
    "CUDA": _without(_C_COMMENT),
    "Protocol Buffers": _without(_C_COMMENT),
    "JavaScript": _without(_C_COMMENT),
    "CSS": _without(_C_COMMENT),
    "HTML": _without(_HTML_COMMENT),
    "CMake": _without(_HASH_COMMENT),
    "Make": _without(_HASH_COMMENT),
}


if __name__ == "__main__":
    main()
