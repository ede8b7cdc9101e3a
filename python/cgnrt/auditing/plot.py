"""The rates of an audit as a bar chart with intervals."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgnrt._support.extras import missing_dependency
from cgnrt._support.files import refuse_existing, written_beside
from cgnrt.auditing.rates import ByMechanism, Rate
from cgnrt.sampling import MECHANISMS

_COLOURS = ("#1b6ca8", "#e08e2b", "#7a7a7a")
_WIDTH = 0.26


def import_figure() -> Any:
    """matplotlib's Figure.

    Raises:
      MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise missing_dependency("plot audit", error) from error
    return Figure


def plot_rates(
    path: str | os.PathLike[str],
    *,
    title: str,
    bars: Mapping[str, ByMechanism],
    chance: float,
    shared: Rate,
    force: bool,
) -> None:
    """Draw the rates of an audit into a PNG; the errors are those of `Audit.plot`.

    Args:
      bars: three, by their legend: a bar for each mechanism.
      chance, shared: drawn as lines.
    """
    target = Path(path)
    if target.suffix != ".png":
        raise ValueError(f"plot audit: output is '{target}', expected a name that ends in .png.")
    refuse_existing(target, force=force)
    # Not pyplot: its figures and settings belong to the program that calls us.
    figure = import_figure()(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for place, ((legend, rates), colour) in enumerate(zip(bars.items(), _COLOURS, strict=True)):
        values = [100 * rate.value for rate in rates]
        below = [100 * (rate.value - rate.low) for rate in rates]
        above = [100 * (rate.high - rate.value) for rate in rates]
        left = [group + (place - 1) * _WIDTH for group in range(len(MECHANISMS))]
        axes.bar(left, values, _WIDTH, yerr=[below, above], capsize=2, color=colour, label=legend)
    axes.axhline(100 * chance, color="black", lw=0.8, ls=":", label="chance")
    axes.axhline(100 * shared.value, color="#2c8a4b", lw=0.8, ls="--", label="accuracy where labels agree")
    axes.set_xticks(range(len(MECHANISMS)), MECHANISMS)
    axes.set_ylim(0, 102)
    axes.set_ylabel("% of images")
    axes.set_title(title, fontsize=9, parse_math=False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    with written_beside(target, force=force) as beside:
        figure.savefig(beside, format="png")
