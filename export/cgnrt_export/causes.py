"""What went wrong first, from an exception that libraries have wrapped."""

from __future__ import annotations

import re


def first_cause(error: BaseException) -> str:
    """The innermost cause of a chained exception, in one line of plain text: type and first line."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        error = inner or error
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"
