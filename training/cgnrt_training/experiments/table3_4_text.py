"""Tables 3 and 4 as text: what was measured on photos, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
ABOUT_TABLE3 = (
    "Sec. 4.3: classifiers of photos, audited with the plan's counterfactuals, whose three labels are independent. "
    "*Follows*: how often the answer is that mechanism's label. *Shape bias*: of the answers that are the shape's "
    "or the texture's label, the share that is the shape's. The paper's shape bias, in brackets, is on the Cue "
    "Conflict images of Geirhos et al. (2019), of ImageNet's classes at 224 px, and cannot be compared with ours, "
    "which are drawn by the very plan that the classifiers with a CGN were trained on. Compare rows, not figures."
)
ABOUT_TABLE4 = (
    "Sec. 4.3: accuracy on photos of val, on their objects before other photos' backgrounds (*Mixed-Same* of the "
    "same class, *Mixed-Rand* of any, made by `cgnrt.real`), and on photos whose object is filled in (*only "
    "background*). *BG-gap* is Mixed-Same minus Mixed-Rand, in points. The paper's figures, in brackets, are on "
    "IN-9 (ImageNet, nine coarse classes, 224 px, a ResNet-50): other data, another size, another network. Compare "
    "rows, not figures."
)
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


def gaps(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What Table 4 says of the BG-gap, in words that are computed from it."""
    for begins, rows in results.items():
        base = rows.get("original")
        if base is None or base["bg_gap"][0] <= 0:
            continue
        parts = []
        for row in in_order(list(rows)):
            name, _, head = row.partition("/")
            if row == "original" or head not in ("", "shape+texture", "shape"):
                continue
            ratio = rows[row]["bg_gap"][0] / base["bg_gap"][0]
            points = 100 * (rows[row]["original"][0] - base["original"][0])
            title = TITLES[name].partition(":")[0] + (f" ({head})" if head else "")
            parts.append(f"{title} {ratio:.2f} and {points:+.1f}")
        if parts:
            yield (
                f"Trained {BEGINS[begins]}, the BG-gap over Original's, and accuracy on photos minus Original's in "
                f"points: {'; '.join(parts)}. The paper's Original + CGN: 0.45 and -1.4."
            )


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
