"""Docstrings as the site's reader of them wants them: an empty line before every section."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"(?<!\n)\n(Args|Attributes|Returns|Raises|Yields):\n")


class Sections(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _SECTION.sub(r"\n\n\1:\n", obj.docstring.value)
