"""Tables of results as Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def percent(pair: Sequence[float], digits: int = 1) -> str:
    """`[0.951, 0.004]` as "95.1 ± 0.4"; a single seed, whose spread is 0, without one."""
    spread = f" ± {100 * pair[1]:.{digits}f}" if pair[1] else ""
    return f"{100 * pair[0]:.{digits}f}{spread}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its head."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
