"""Tables 3 and 4 as text: what was measured on photos, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import paper
from .tables import markdown, percent

TITLES = {
    "original": "Original",
    "random-erasing": "Original, random erasing",
    "mixed-rand": "Mixed-Rand alone",
    "original+swaps": "Original + swaps: mean of all heads",
    "original+swaps/mean-logits": "... mean of logits",
    "original+swaps/shape+texture": "... shape + texture heads",
    "original+swaps/shape": "... shape head",
    "original+swaps/texture": "... texture head",
    "original+swaps/background": "... background head",
    "original+cgn": "Original + CGN: mean of all heads",
    "original+cgn/mean-logits": "... mean of logits",
    "original+cgn/shape+texture": "... shape + texture heads",
    "original+cgn/shape": "... shape head",
    "original+cgn/texture": "... texture head",
    "original+cgn/background": "... background head",
}
BEGINS = {"pretrained": "from ImageNet's weights", "scratch": "from scratch"}
SETS = {
    "original": "original",
    "mixed_same": "Mixed-Same",
    "mixed_rand": "Mixed-Rand",
    "bg_gap": "BG-gap",
    "only_background": "only background",
}
MEASURES = {
    "shape_bias": "shape bias",
    "follows_shape": "follows shape",
    "follows_texture": "follows texture",
    "follows_background": "follows background",
    "original": "accuracy on photos",
}


def table4(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Table 4 as Markdown, one table for each way to begin; the paper's figures in brackets."""
    return _tables(results, SETS, paper.TABLE4)


def table3(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Table 3 as Markdown, likewise."""
    return _tables(results, MEASURES, paper.TABLE3)


TABLES: Mapping[str, Callable[[Mapping[str, Mapping[str, Any]]], str]] = {"table3": table3, "table4": table4}


def in_order(rows: Sequence[str]) -> list[str]:
    """Rows in the order of the tables."""
    return [row for row in TITLES if row in rows]


def _tables(
    results: Mapping[str, Mapping[str, Any]],
    columns: Mapping[str, str],
    theirs: Mapping[str, Mapping[str, float]],
) -> str:
    parts = []
    for begins, title in BEGINS.items():
        if begins not in results:
            continue
        of_rows = results[begins]
        lines = [[f"{title}, % (paper)", *columns.values()]]
        for row in in_order(list(of_rows)):
            line = [TITLES[row]]
            for key in columns:
                # The paper's classifiers all begin with ImageNet's weights.
                number = theirs.get(row, {}).get(key) if begins == "pretrained" else None
                shown = percent(of_rows[row][key]) if key in of_rows[row] else ""
                line.append(f"{shown} ({number:g})" if number is not None and shown else shown)
            lines.append(line)
        parts.append(markdown(lines))
    return "\n\n".join(parts)
