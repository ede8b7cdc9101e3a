"""An audit as bars with intervals."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgnrt._support.files import refuse_existing, written_beside
from cgnrt.errors import MissingDependencyError
from cgnrt.sampling import MECHANISMS

if TYPE_CHECKING:
    from cgnrt.auditing.result import Audit

_GROUPS = (
    ("follows", "the answer follows its label"),
    ("changes", "changes when it alone changes"),
    ("moves", "moves to its new label"),
)
_COLOURS = ("#1b6ca8", "#e08e2b", "#7a7a7a")
_WIDTH = 0.26


def import_figure() -> Any:
    """matplotlib's Figure.

    Raises:
      MissingDependencyError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingDependencyError(
            "plot audit: package 'matplotlib' is not installed. Run: pip install 'cgnrt[plot]'"
        )
    from matplotlib.figure import Figure

    return Figure


def plot(audit: Audit, path: str | os.PathLike[str], *, force: bool) -> None:
    """Draw an audit into a PNG; arguments and errors are those of `Audit.plot`."""
    target = Path(path)
    if target.suffix != ".png":
        raise ValueError(f"plot audit: output is '{target}', expected a name that ends in .png.")
    refuse_existing(target, force=force)
    # Not pyplot, whose figures and settings are the program's.
    figure = import_figure()(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for place, ((name, legend), colour) in enumerate(zip(_GROUPS, _COLOURS, strict=True)):
        rates = [getattr(getattr(audit, name), mechanism) for mechanism in MECHANISMS]
        values = [100 * rate.value for rate in rates]
        below = [100 * (rate.value - rate.low) for rate in rates]
        above = [100 * (rate.high - rate.value) for rate in rates]
        left = [group + (place - 1) * _WIDTH for group in range(len(MECHANISMS))]
        axes.bar(left, values, _WIDTH, yerr=[below, above], capsize=2, color=colour, label=legend)
    axes.axhline(100 * audit.chance, color="black", lw=0.8, ls=":", label="chance")
    axes.axhline(
        100 * audit.shared.value, color="#2c8a4b", lw=0.8, ls="--", label="accuracy where labels agree"
    )
    axes.set_xticks(range(len(MECHANISMS)), MECHANISMS)
    axes.set_ylim(0, 102)
    axes.set_ylabel("% of images")
    axes.set_title(
        f"{audit.plan}, {audit.n:,} of each, {100 * audit.confidence:g} % intervals",
        fontsize=9,
        parse_math=False,
    )
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    with written_beside(target, force=force) as beside:
        figure.savefig(beside, format="png")
