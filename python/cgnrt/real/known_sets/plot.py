"""Rates of a test set as bars with intervals."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cgnrt._support.files import refuse_existing, written_beside
from cgnrt.auditing.plot import import_figure
from cgnrt.auditing.rates import Rate

_COLOURS = ("#1b6ca8", "#7a7a7a")


def plot_bars(
    path: str | os.PathLike[str], *, title: str, bars: Mapping[str, Mapping[str, Rate]], force: bool
) -> None:
    """Draw rates into a PNG; the errors are those of `In9Audit.plot`.

    Args:
      bars: by legend, the rates by the name below the axis; one or two, of the same names.
    """
    target = Path(path)
    if target.suffix != ".png":
        raise ValueError(f"plot audit: output is '{target}', expected a name that ends in .png.")
    refuse_existing(target, force=force)
    # Not pyplot: its figures and settings belong to the program that calls us.
    names = list(next(iter(bars.values())))
    figure = import_figure()(figsize=(max(6.5, 0.62 * len(names)), 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(bars)
    for place, ((legend, rates), colour) in enumerate(zip(bars.items(), _COLOURS, strict=False)):
        left = [k + (place - (len(bars) - 1) / 2) * width for k in range(len(names))]
        # A category of which no answer tells anything has no bar.
        values = [100 * rate.value if rate.n else 0 for rate in rates.values()]
        ends = [(100 * rate.low, 100 * rate.high) if rate.n else (0, 0) for rate in rates.values()]
        error = [[value - low for value, (low, _) in zip(values, ends, strict=True)]]
        error += [[high - value for value, (_, high) in zip(values, ends, strict=True)]]
        axes.bar(left, values, width, yerr=error, capsize=2, color=colour, label=legend)
    axes.set_xticks(range(len(names)), names, rotation=45 if len(names) > 8 else 0, fontsize=8)
    axes.set_ylim(0, 102)
    axes.set_ylabel("% of pictures" if len(bars) > 1 else next(iter(bars)) + ", %")
    axes.set_title(title, fontsize=9, parse_math=False)
    if len(bars) > 1:
        figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    with written_beside(target, force=force) as beside:
        figure.savefig(beside, format="png")
