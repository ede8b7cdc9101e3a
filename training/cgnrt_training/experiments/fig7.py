"""Fig. 7: test accuracy against how many counterfactuals there are, and of what kind, on one variant.

Three axes, one moved at a time: the number of counterfactuals beside 50,000 real images, the counterfactuals for each
noise (both App. A.3), and, ours, the reuse factor of a pool. Every classifier takes the same number of steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from ..classifier.config import ClassifierConfig
from ..classifier.sources import Inputs
from ..settings import from_texts, override, to_dict
from . import cells, plots
from .tables import markdown, percent

AXES: dict[str, tuple[int, ...]] = {
    "counterfactuals": (10_000, 50_000, 200_000, 500_000, 1_000_000),
    "per_noise": (1, 5, 10, 20),
    "reuse": (1, 4, 16, 64, 256, 1024),
}
TITLES = {
    "counterfactuals": "counterfactuals",
    "per_noise": "counterfactuals per noise",
    "reuse": "images per run of a mechanism (pool)",
}


@dataclass(frozen=True, kw_only=True)
class Fig7(cells.Experiment):
    """What is to be run.

    Attributes:
      axes: setting -> values; the settings that stay are those of `settings`.
    """

    variant: str
    plan: Path
    axes: Mapping[str, Sequence[int]]


def run(options: Fig7, log: TextIO) -> Path:
    """Do the missing cells, then write `fig7.json`, `fig7.md` and `fig7.png`.

    Returns:
      The path of the JSON file; its results are `{"variant": ..., "axes": {axis: {value: {"train": [mean, std],
      "test": ..., "counterfactual": ..., "distinct": different counterfactuals that were seen}}}}`.
    Raises:
      ValueError: an input is missing, or the folder's cells have other settings.
      CgnrtError: a cell failed.
    """
    base = from_texts(ClassifierConfig("original+cgn", options.variant), options.settings)
    points = {
        (axis, value): override(base, {axis: value})
        for axis, values in options.axes.items()
        for value in values
    }
    inputs = Inputs(options.data, options.textures, options.plan)
    # Values that several axes share are one cell.
    todo = {
        cell_name(config, seed): cells.Cell(replace(config, seed=seed), inputs, device=options.device)
        for seed in range(options.seeds)
        for config in points.values()
    }
    settings = to_dict(base) | {"plan": cells.plan_digest(options.plan)}
    for name in ("seed", *AXES):
        del settings[name]

    def results(done: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        axes: dict[str, dict[str, Any]] = {axis: {} for axis in options.axes}
        for (axis, value), config in points.items():
            of_seeds = [done[cell_name(config, seed)] for seed in range(options.seeds)]
            axes[axis][str(value)] = {
                name: cells.mean_std([cell[name] for cell in of_seeds])
                for name in ("train", "test", "counterfactual", "seconds")
            } | {"distinct": min(config.counterfactuals, config.generated_share * config.steps)}
        fixed = {axis: getattr(base, axis) for axis in AXES}
        return {"variant": options.variant, "fixed": fixed, "axes": axes}

    path = options.run("fig7", todo, settings, results, table, log)
    plots.fig7(path, path.with_suffix(".png"))
    return path


def cell_name(config: ClassifierConfig, seed: int) -> str:
    """The name of a cell's file."""
    return f"n{config.counterfactuals}.k{config.per_noise}.r{config.reuse}.{seed}"


def table(results: Mapping[str, Any]) -> str:
    """The figure as Markdown, an axis below the other."""
    parts = [f"Variant {results['variant']}; accuracy, %."]
    for axis, points in results["axes"].items():
        lines = [[TITLES[axis], "different ones seen", "train", "test", "held-out counterfactuals"]]
        for value, point in points.items():
            accuracies = [percent(point[name]) for name in ("train", "test", "counterfactual")]
            lines.append([f"{int(value):,}", f"{point['distinct']:,}", *accuracies])
        parts.append(markdown(lines))
    return "\n\n".join(parts)
