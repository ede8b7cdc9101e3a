"""Table 5 (App. H): which signal is causal, read from environments, without knowing it beforehand.

Three classifiers are trained on counterfactuals alone, one for each mechanism's label. Each is invariant to the two
other mechanisms. Then their accuracy is measured in environments where cues follow the digit to different degrees: only
a classifier of the causal signal keeps its accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from cgnrt._support.terminal import say
from cgnrt.sampling import MECHANISMS

from ..classifier.config import ClassifierConfig
from ..classifier.sources import Inputs
from ..settings import from_texts, to_dict
from . import cells, paper, plots
from .tables import markdown, percent

CORRELATIONS = (0.9, 0.95, 1.0)
TITLES = {"shape": "shape", "texture": "object colour", "background": "background colour"}


@dataclass(frozen=True, kw_only=True)
class Table5(cells.Experiment):
    """What is to be run."""

    variant: str
    plan: Path


def run(options: Table5, log: TextIO) -> Path:
    """Do the missing cells, then write `table5.json`, `table5.md` and `table5.png`.

    Returns:
      The path of the JSON file; its results are `{"variant": ..., "accuracy": {mechanism: {correlation: [mean, std]}},
      "spread": {mechanism: ...}, "causal": mechanism}`.
    Raises:
      ValueError: an input is missing, or the folder's cells have other settings.
      CgnrtError: a cell failed.
    """
    base = from_texts(ClassifierConfig("cgn-only", options.variant), options.settings)
    inputs = Inputs(options.data, options.textures, options.plan)
    todo = {
        f"{label}.{seed}": cells.Cell(
            replace(base, label=label, seed=seed),
            inputs,
            correlations=CORRELATIONS,
            device=options.device,
        )
        for seed in range(options.seeds)
        for label in MECHANISMS
    }
    settings = to_dict(base) | {"plan": cells.plan_digest(options.plan)}
    for name in ("seed", "label"):
        del settings[name]

    def results(done: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        seeds = range(options.seeds)
        found = {label: [done[f"{label}.{seed}"]["environments"] for seed in seeds] for label in MECHANISMS}
        read_off = read(options.variant, found)
        say(f"table5: the causal signal is {read_off['causal']}: its accuracy changes least", log)
        return read_off

    path = options.run("table5", todo, settings, results, table, log)
    plots.table5(path, path.with_suffix(".png"))
    return path


def read(variant: str, found: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """What the environments say.

    Args:
      found: mechanism -> for each seed correlation -> accuracy of the classifier of its label.
    """
    accuracy = {
        label: {c: cells.mean_std([of_seed[c] for of_seed in of_seeds]) for c in of_seeds[0]}
        for label, of_seeds in found.items()
    }
    means = {label: [pair[0] for pair in pairs.values()] for label, pairs in accuracy.items()}
    spread = {label: round(max(values) - min(values), 6) for label, values in means.items()}
    causal = min(spread, key=lambda label: spread[label])
    return {"variant": variant, "accuracy": accuracy, "spread": spread, "causal": causal}


def table(results: Mapping[str, Any]) -> str:
    """The table as Markdown, the paper's figures in brackets."""
    accuracy: Mapping[str, Mapping[str, Sequence[float]]] = results["accuracy"]
    papers = paper.TABLE5 if results["variant"] == "double-colored" else {}
    lines = [["accuracy, % (paper), of the classifier of", *(TITLES[label] for label in accuracy)]]
    for correlation in next(iter(accuracy.values())):
        line = [f"{100 * float(correlation):g} % correlation"]
        for label, pairs in accuracy.items():
            theirs = papers.get(label, {}).get(correlation)
            line.append(percent(pairs[correlation]) + (f" ({theirs[0]})" if theirs else ""))
        lines.append(line)
    lines.append(["spread, points", *(f"{100 * results['spread'][label]:.1f}" for label in accuracy)])
    causal = TITLES[results["causal"]]
    return f"{markdown(lines)}\n\nThe causal signal, whose classifier's accuracy changes least: {causal}."
