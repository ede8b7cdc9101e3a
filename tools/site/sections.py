"""Docstrings as the site's reader of them wants them: an empty line before every section, one entry for each argument,
and examples as Python."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import griffe

_SECTION = re.compile(r"(?<!\n)\n(Args|Attributes|Returns|Raises|Yields):\n")
_ENTRIES = re.compile(r"^(Args|Attributes|Raises):\n((?: +.*(?:\n|\Z)|\n(?= ))+)", re.M)
# Indented lines below a paragraph. What belongs to a section follows its name, or lines that are indented themselves.
_EXAMPLE = re.compile(r"^(\S.*\n\n)((?: {4}.*(?:\n|\Z)|\n(?= {4}))+)", re.M)


def with_examples(text: str) -> str:
    """A docstring whose examples, which are indented, are blocks of Python."""
    return _EXAMPLE.sub(lambda found: f"{found[1]}```python\n{dedent(found[2]).rstrip()}\n```\n", text)


def with_single_entries(text: str) -> str:
    """A docstring where `a, b: ...` in a list of arguments or errors has become an entry of `a` and one of `b`."""

    def split(found: re.Match[str]) -> str:
        indent = found[2][: len(found[2]) - len(found[2].lstrip())]
        entry = re.compile(rf"^{indent}(\w+(?:, \w+)+):(.*\n?(?:{indent} .*\n?)*)", re.M)

        def each(several: re.Match[str]) -> str:
            content = several[2] if several[2].endswith("\n") else several[2] + "\n"
            return "".join(f"{indent}{name}:{content}" for name in several[1].split(", "))

        return f"{found[1]}:\n{entry.sub(each, found[2])}"

    return _ENTRIES.sub(split, text)


class Sections(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        if obj.docstring:
            text = with_single_entries(with_examples(obj.docstring.value))
            obj.docstring.value = _SECTION.sub(r"\n\n\1:\n", text)
