"""Plots of the experiments' JSON files, as small PNGs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cgnrt._support.extras import missing_dependency
from cgnrt._support.files import discard
from cgnrt._support.reading import read_text
from cgnrt.errors import CgnrtError

from . import paper

OURS, PAPERS, ALSO = "#1b6ca8", "#b9b9b9", "#e08e2b"
CHANCE = 10.0  # per cent, of ten classes
ROW_TITLES = {
    "original": "Original",
    "irm-2": "IRM, 2 environments",
    "irm-5": "IRM, 5 environments",
    "lntl": "LNTL",
    "original+gan": "Original + GAN",
    "original+cgn": "Original + CGN",
    "cgn-only": "CGN alone",
    "colour-jitter": "Colour jitter",
    "background-mix": "Background mix",
    "pooled-5": "5 environments, pooled",
    "oracle": "Oracle",
}
AXIS_TITLES = {
    "counterfactuals": "counterfactuals beside 50,000 real images",
    "per_noise": "counterfactuals per noise u",
    "reuse": "reuse factor of the pool",
}
MECHANISM_TITLES = {"shape": "shape", "texture": "object colour", "background": "background colour"}


def figure(width: float, height: float) -> Any:
    """A matplotlib figure that belongs to no window and no global state.

    Raises:
      MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # not pyplot, whose figures and settings are the program's
    except ModuleNotFoundError as error:
        raise missing_dependency("plot", error, "train") from error
    return Figure(figsize=(width, height), layout="constrained")


def save(drawn: Any, path: Path, *, palette: bool = False) -> None:
    """Write a figure beside `path`, then rename it there; the same figure gives the same bytes.

    Args:
      palette: take 256 colours, for a picture of pictures a third of the size.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        drawn.savefig(partial, format="png", dpi=100, metadata={"Software": None})
        if palette:
            with Image.open(partial) as picture:
                reduced = picture.convert("RGB").quantize(256)
            reduced.save(partial, format="PNG", optimize=True)
        os.replace(partial, path)
    finally:
        discard(partial)


def read_results(result: Path) -> Any:
    """The `results` of an experiment's JSON file.

    Raises:
      CgnrtError: the file is unreadable, damaged or without results.
    """
    try:
        return json.loads(read_text(result))["results"]
    except OSError as error:
        raise CgnrtError(
            f"plot '{result}': file is unreadable ({error.strerror}), expected an experiment's JSON. Check the path."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CgnrtError(
            f"plot '{result}': content has no results ({error}), expected an experiment's JSON. Run it again."
        ) from error


def table2(result: Path, path: Path) -> None:
    """Test accuracy of every row, a panel for each variant, the paper's beside ours."""
    draw_table2(read_results(result), path)


def fig7(result: Path, path: Path) -> None:
    """Test accuracy along the three axes."""
    draw_fig7(read_results(result), path)


def table5(result: Path, path: Path) -> None:
    """Accuracy of the three classifiers against correlation."""
    draw_table5(read_results(result), path)


def draw_table2(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """`table2` from the results themselves: variant -> row -> {"train": [mean, std], "test": [mean, std]}."""
    rows = in_order([row for of_rows in results.values() for row in of_rows])
    drawn = figure(3.0 + 2.7 * len(results), 1.2 + 0.42 * len(rows))
    panels = drawn.subplots(1, len(results), squeeze=False, sharey=True)[0]
    for panel, (variant, of_rows) in zip(panels, results.items(), strict=True):
        for place, row in enumerate(rows):
            if row not in of_rows:
                continue
            test, train = of_rows[row]["test"], of_rows[row]["train"]
            # A mean of 99.9 with a deviation of 0.2 does not mean an accuracy above 100.
            above = min(100 * test[1], 100 - 100 * test[0])
            panel.barh(
                place - 0.19,
                100 * test[0],
                0.38,
                color=OURS,
                xerr=[[100 * test[1]], [above]],
                error_kw={"lw": 1},
            )
            panel.plot(100 * train[0], place - 0.19, "|", color="black", ms=7)
            panel.text(2, place - 0.19, f"{100 * test[0]:.1f}", va="center", color="white", size=7)
            theirs = paper.table2(variant, row)
            if theirs is not None:
                panel.barh(place + 0.19, theirs[1], 0.38, color=PAPERS)
                panel.text(2, place + 0.19, f"{theirs[1]:.1f}", va="center", size=7)
        panel.axvline(CHANCE, color="black", lw=0.8, ls=":")
        panel.set(title=variant, xlim=(0, 102), xlabel="test accuracy, %")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(rows)), [ROW_TITLES.get(row, row) for row in rows])
    panels[0].invert_yaxis()
    panels[-1].barh([0], [0], color=OURS, label="ours (line: train)")
    panels[-1].barh([0], [0], color=PAPERS, label="paper")
    panels[-1].plot([], [], color="black", lw=0.8, ls=":", label="chance")
    drawn.legend(loc="outside lower center", ncols=3, frameon=False)
    save(drawn, path)


def draw_fig7(results: Mapping[str, Any], path: Path) -> None:
    """`fig7` from the results themselves: {"variant": ..., "axes": {axis: {value: {"test": [mean, std], ...}}}}."""
    axes: Mapping[str, Mapping[str, Any]] = results["axes"]
    drawn = figure(1.0 + 3.2 * len(axes), 3.9)
    panels = drawn.subplots(1, len(axes), squeeze=False, sharey=True)[0]
    lines = (("test", "test domain", OURS, "-"), ("counterfactual", "held-out counterfactuals", ALSO, "--"))
    for panel, (axis, points) in zip(panels, axes.items(), strict=True):
        values = sorted(points, key=int)
        for kind, label, colour, style in lines:
            pairs = [points[value][kind] for value in values if kind in points[value]]
            if len(pairs) == len(values):
                _errorbars(panel, [int(value) for value in values], pairs, label, colour, style)
        panel.set(xscale="log", xlabel=AXIS_TITLES.get(axis, axis))
        panel.set_xticks([int(value) for value in values], [_short(int(value)) for value in values])
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(f"accuracy on {results['variant']}, %")
    drawn.suptitle("The classifier of Table 2, trained on real images and counterfactuals", fontsize=10)
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    save(drawn, path)


def draw_table5(results: Mapping[str, Any], path: Path) -> None:
    """`table5` from the results themselves: {"accuracy": {mechanism: {correlation: [mean, std]}}, ...}."""
    drawn = figure(5.6, 4.1)
    panel = drawn.subplots()
    for (mechanism, pairs), colour in zip(results["accuracy"].items(), (OURS, ALSO, "#2c8a4b"), strict=False):
        title = MECHANISM_TITLES.get(mechanism, mechanism)
        correlations = [100 * float(c) for c in pairs]
        _errorbars(panel, correlations, list(pairs.values()), f"{title} classifier", colour, "-")
        theirs = paper.TABLE5.get(mechanism) if results["variant"] == "double-colored" else None
        if theirs is not None:
            panel.plot(
                [100 * float(c) for c in theirs],
                [pair[0] for pair in theirs.values()],
                "o:",
                color=colour,
                mfc="white",
                ms=4,
            )
    panel.plot([], [], "o:", color="black", mfc="white", ms=4, label="paper")
    panel.set(xlabel="cues that follow the digit, %", ylabel="accuracy, %", ylim=(None, 101))
    panel.set_title(f"{results['variant']}: whose accuracy stays?", fontsize=10)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.3)
    drawn.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    save(drawn, path)


def in_order(rows: Sequence[str]) -> list[str]:
    """Distinct rows in the order of the tables, unknown ones last."""
    known = [row for row in ROW_TITLES if row in rows]
    return known + [row for row in dict.fromkeys(rows) if row not in ROW_TITLES]


def _short(value: int) -> str:
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if value >= size and value % size == 0:
            return f"{value // size}{letter}"
    return str(value)


def _errorbars(
    panel: Any, x: Sequence[float], pairs: Sequence[Any], label: str, colour: str, style: str
) -> None:
    means, spreads = [100 * pair[0] for pair in pairs], [100 * pair[1] for pair in pairs]
    panel.errorbar(
        x, means, spreads, label=label, color=colour, ls=style, marker="o", ms=4, capsize=2, lw=1.4
    )
