"""Plots of Tables 3 and 4: bars by row, a panel for each way to begin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..plots import ALSO, OURS, PAPERS, figure, save
from .text import BEGINS, MEASURES, SETS, TITLES, in_order

_COLOURS = (OURS, "#2c8a4b", ALSO, PAPERS)
_SHOWN4 = ("original", "mixed_same", "mixed_rand", "only_background")
_SHOWN3 = ("shape_bias", "follows_shape", "follows_texture", "follows_background")


def draw_table4(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Accuracies on the four sets; the distance of the second and the third bar is the BG-gap."""
    _draw(results, {key: SETS[key] for key in _SHOWN4}, "accuracy, %", path)


def draw_table3(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Shape bias, and which mechanism's label answers follow."""
    _draw(results, {key: MEASURES[key] for key in _SHOWN3}, "% of counterfactuals", path)


def _draw(results: Mapping[str, Mapping[str, Any]], bars: Mapping[str, str], unit: str, path: Path) -> None:
    begins = [name for name in BEGINS if results.get(name)]
    rows = {
        name: [r for r in in_order(list(results[name])) if not r.endswith("/mean-logits")] for name in begins
    }
    most = max((len(found) for found in rows.values()), default=1)
    drawn = figure(max(5.0, 0.75 * most + 1.5), 3.8 * max(1, len(begins)))
    panels = drawn.subplots(max(1, len(begins)), 1, squeeze=False)[:, 0]
    width = 0.8 / len(bars)
    for panel, name in zip(panels, begins, strict=False):
        for place, ((key, label), colour) in enumerate(zip(bars.items(), _COLOURS, strict=False)):
            at = [k + (place - (len(bars) - 1) / 2) * width for k in range(len(rows[name]))]
            pairs = [results[name][row].get(key, (float("nan"), 0.0)) for row in rows[name]]
            means, spreads = [100 * pair[0] for pair in pairs], [100 * pair[1] for pair in pairs]
            error = spreads if any(spreads) else None  # one seed has none
            panel.bar(at, means, width, yerr=error, capsize=1.5, color=colour, label=label)
        labels = [_short(row) for row in rows[name]]
        panel.set_xticks(range(len(labels)), labels, rotation=20, ha="right", fontsize=8)
        panel.set_ylabel(unit)
        panel.set_ylim(0, 100)
        panel.set_title(BEGINS[name], fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.3, axis="y")
    if begins:
        drawn.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=2,
            frameon=False,
            fontsize=8,
        )
    save(drawn, path)


def _short(row: str) -> str:
    name, _, answer = row.partition("/")
    title = TITLES[name].partition(":")[0]
    return f"{title.removeprefix('Original ')}, {answer}" if answer else title
