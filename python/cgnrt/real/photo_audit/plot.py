"""The rates of an audit of photos as a picture: bars with intervals, a grid of places, a curve over sizes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cgnrt._support.files import refuse_existing, written_beside
from cgnrt.auditing.plot import import_figure
from cgnrt.auditing.rates import Rate
from cgnrt.real.photo_audit.places import POSITIONS
from cgnrt.real.photo_audit.rates import PhotoRates

_RIGHT, _KEPT, _LEANS = "#1b6ca8", "#e08e2b", "#7a7a7a"
_SHOWN = {
    "photo": "photo",
    "same": "background of\nits class",
    "other": "background of\nanother",
    "grey": "on grey",
    "texture": "texture of\nanother",
}


def plot_audit(audit: PhotoRates, path: str | os.PathLike[str], *, title: str, force: bool) -> None:
    """Draw an audit into a PNG; the errors are those of `PhotoAudit.plot`."""
    target = Path(path)
    if target.suffix != ".png":
        raise ValueError(f"plot audit: output is '{target}', expected a name that ends in .png.")
    refuse_existing(target, force=force)
    # Not pyplot: its figures and settings belong to the program that calls us.
    with_places = bool(audit.by_position)
    figure = import_figure()(figsize=(13 if with_places else 7.5, 4), dpi=110, layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(7.5, 2.8, 2.8)) if with_places else [figure.subplots()]
    _draw_bars(panels[0], audit)
    if with_places:
        _draw_positions(panels[1], audit)
        _draw_sizes(panels[2], audit)
    figure.suptitle(title, fontsize=9, parse_math=False)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    with written_beside(target, force=force) as beside:
        figure.savefig(beside, format="png")


def _draw_bars(axes: Any, audit: PhotoRates) -> None:
    at = {name: place for place, name in enumerate(_SHOWN)}
    _bars(axes, [at[name] - 0.19 for name in audit.accuracy], list(audit.accuracy.values()), _RIGHT, "right")
    _bars(
        axes,
        [at[name] + 0.19 for name in audit.keeps],
        list(audit.keeps.values()),
        _KEPT,
        "same answer as for the photo",
    )
    last = len(at)
    _bars(
        axes,
        [last, last + 1],
        [audit.background_alone, audit.texture_follows],
        _LEANS,
        "answer without the object",
    )
    axes.set_xticks(
        range(last + 2), [*_SHOWN.values(), "background\nalone", "follows new\ntexture"], fontsize=8
    )
    axes.set_ylim(0, 102)
    axes.set_ylabel("% of images")


def _bars(axes: Any, places: Sequence[float], rates: Sequence[Rate], colour: str, label: str) -> None:
    axes.bar(
        places,
        [100 * rate.value for rate in rates],
        0.36,
        yerr=_intervals(rates),
        capsize=2,
        color=colour,
        label=label,
    )


def _intervals(rates: Sequence[Rate]) -> list[list[float]]:
    """How far the intervals reach below and above, in percent."""
    below = [100 * (rate.value - rate.low) for rate in rates]
    return [below, [100 * (rate.high - rate.value) for rate in rates]]


def _draw_positions(axes: Any, audit: PhotoRates) -> None:
    values = [[100 * audit.by_position[name].value for name in POSITIONS[k : k + 3]] for k in (0, 3, 6)]
    axes.imshow(values, vmin=0, vmax=100, cmap="Blues")
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            axes.text(
                x, y, f"{value:.0f}", ha="center", va="center", color="white" if value > 55 else "black"
            )
    axes.set_xticks([])
    axes.set_yticks([])
    bias = "" if audit.centre_bias is None else f"\ncentre bias {audit.centre_bias:.2f}"
    axes.set_title(f"% right by place{bias}", fontsize=9)


def _draw_sizes(axes: Any, audit: PhotoRates) -> None:
    sizes, rates = list(audit.by_size), list(audit.by_size.values())
    axes.errorbar(
        range(len(sizes)),
        [100 * rate.value for rate in rates],
        yerr=_intervals(rates),
        capsize=2,
        marker="o",
        color=_RIGHT,
    )
    axes.set_xticks(range(len(sizes)), [f"x {size:g}" for size in sizes], fontsize=8)
    axes.set_ylim(0, 102)
    axes.set_title("% right by the object's area", fontsize=9)
