"""Tables 3 and 4 as text: what was measured on photos, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import paper
from ..tables import markdown, percent
from .summary import BASE

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
ABOUT_PLACES = (
    "Photos' objects moved and scaled over their own filled backgrounds (`cgnrt.real.audit`), by ForNet's definitions "
    "(Nauen et al., 2025). *Centre bias*: 1 - (lowest accuracy in a corner + lowest at a side) / (2 x accuracy in the "
    "centre), with objects at a third of their size; 0 means that the place does not matter. *x 1/4* and so on: "
    "accuracy with the object at that factor of its area over accuracy at its own; 100 means that the size does not "
    "matter. An object that is larger than the picture is cut off."
)
ABOUT_AGAINST = (
    "Against Original of the same seed, mean and spread over seeds; differences are in points. The paper's, in "
    "brackets, are of its means."
)
MEASURES = {
    "shape_bias": "shape bias",
    "follows_shape": "follows shape",
    "follows_texture": "follows texture",
    "follows_background": "follows background",
    "original": "accuracy on photos",
}
PLACES = {
    "centre_bias": "centre bias",
    "size_bias_0.25": "x 1/4",
    "size_bias_0.5": "x 1/2",
    "size_bias_2": "x 2",
    "size_bias_4": "x 4",
}
AGAINST = {
    "table3": {
        "shape_bias_minus_original": "shape bias",
        "texture_bias_minus_original": "texture bias",
        "follows_background_minus_original": "follows background",
    },
    "table4": {
        "bg_gap_over_original": "BG-gap, over Original's",
        "original_minus_original": "accuracy on photos",
        "only_background_minus_original": "accuracy on backgrounds alone",
    },
}
_MAIN = {"table3": (ABOUT_TABLE3, MEASURES, paper.TABLE3), "table4": (ABOUT_TABLE4, SETS, paper.TABLE4)}


def parts(table: str, results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A table's explanations and Markdown tables; those that nothing was measured for are left out.

    Args:
      table: "table3" or "table4".
    """
    about, columns, theirs = _MAIN[table]
    yield about
    yield from _tables(results, columns, theirs)
    if table == "table4" and (found := _tables(results, PLACES, {})):
        yield ABOUT_PLACES
        yield from found
    if found := _tables(results, AGAINST[table], _against_paper(theirs)):
        yield ABOUT_AGAINST
        yield from found


def in_order(rows: Sequence[str]) -> list[str]:
    """Rows in the order of the tables."""
    return [row for row in TITLES if row in rows]


def _tables(
    results: Mapping[str, Mapping[str, Any]],
    columns: Mapping[str, str],
    theirs: Mapping[str, Mapping[str, float]],
) -> list[str]:
    """A table for each way to begin; the paper's figures in brackets."""
    found = []
    for begins, title in BEGINS.items():
        of_rows = {
            row: values
            for row, values in results.get(begins, {}).items()
            if any(key in values for key in columns)
        }
        lines = [[f"{title}, % (paper)" if theirs else f"{title}, %", *columns.values()]]
        for row in in_order(list(of_rows)):
            line = [TITLES[row]]
            for key in columns:
                # The paper's classifiers all begin with ImageNet's weights.
                number = theirs.get(row, {}).get(key) if begins == "pretrained" else None
                shown = _shown(key, of_rows[row][key]) if key in of_rows[row] else ""
                line.append(f"{shown} ({number:g})" if number is not None and shown else shown)
            lines.append(line)
        if of_rows:
            found.append(markdown(lines))
    return found


def _shown(key: str, pair: Sequence[float]) -> str:
    """Per cent or points; a ratio as it is."""
    if key.endswith("_over_original"):
        return f"{pair[0]:.2f}" + (f" ± {pair[1]:.2f}" if pair[1] else "")
    return ("+" if key.endswith("_minus_original") and pair[0] >= 0 else "") + percent(pair)


def _against_paper(theirs: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The paper's rows against its Original, by the keys of `AGAINST`."""
    base = theirs[BASE]
    found: dict[str, dict[str, float]] = {}
    for row, values in theirs.items():
        if row == BASE:
            continue
        found[row] = {
            f"{key}_minus_original": round(values[key] - base[key], 2)
            for key in ("shape_bias", "original")
            if key in values
        }
        if "shape_bias" in values:
            found[row]["texture_bias_minus_original"] = -found[row]["shape_bias_minus_original"]
        if "bg_gap" in values:
            found[row]["bg_gap_over_original"] = round(values["bg_gap"] / base["bg_gap"], 2)
    return found
