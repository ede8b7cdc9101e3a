"""Table 2: train and test accuracy of every row on every variant, mean and standard deviation over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from ..classifier.config import NEEDS_GAN, NEEDS_PLAN, ROWS, ClassifierConfig
from ..classifier.sources import Inputs
from ..mnist.config import VARIANTS
from ..settings import from_texts, to_dict
from . import cells, paper, plots
from .tables import markdown, percent

DEFAULT_ROWS = tuple(row for row in ROWS if row != "cgn-only")
TITLES = {
    "original": "Original",
    "irm-2": "IRM (2 envs)",
    "irm-5": "IRM (5 envs)",
    "lntl": "LNTL",
    "original+gan": "Original + GAN",
    "original+cgn": "Original + CGN",
    "oracle": "Oracle (real, cues random)",
    "colour-jitter": "Original, colour jitter",
    "background-mix": "Original, background mix",
    "pooled-5": "5 envs pooled, plain loss",
    "cgn-only": "CGN alone",
}


@dataclass(frozen=True, kw_only=True)
class Table2(cells.Experiment):
    """What is to be run.

    Attributes:
      plans, gans: folders with `<variant>.plan` and `<variant>.pt`.
      audit: samples of the audit of each row's first seed; 0 leaves it out.
    """

    plans: Path | None
    gans: Path | None
    variants: Sequence[str]
    rows: Sequence[str]
    audit: int


def run(options: Table2, log: TextIO) -> Path:
    """Do the missing cells, then write `table2.json`, `table2.md` and `table2.png`.

    Returns:
      The path of the JSON file; its results are `variant -> row -> {"train": [mean, std], "test": ..., "audit": ...}`,
      accuracies as fractions.
    Raises:
      ValueError: a file that a row needs is missing, or the folder's cells have other settings.
      CgnrtError: a cell failed.
    """
    todo = {
        cell_name(variant, row, seed): cell
        for seed in range(options.seeds)  # whole tables first, so that an interrupted run has one
        for variant in options.variants
        for row in options.rows
        for cell in [_cell(options, variant, row, seed)]
    }

    def results(done: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        return {
            variant: {
                row: summary([done[cell_name(variant, row, seed)] for seed in range(options.seeds)])
                for row in options.rows
            }
            for variant in options.variants
        }

    path = options.run("table2", todo, _settings(options), results, table, log)
    plots.table2(path, path.with_suffix(".png"))
    return path


def cell_name(variant: str, row: str, seed: int) -> str:
    """The name of a cell's file."""
    return f"{variant}.{row}.{seed}"


def _cell(options: Table2, variant: str, row: str, seed: int) -> cells.Cell:
    config = from_texts(ClassifierConfig(row, variant), options.settings)
    config = replace(config, row=row, variant=variant, seed=seed)
    plan = options.plans / f"{variant}.plan" if options.plans else None
    gan = options.gans / f"{variant}.pt" if options.gans else None
    for option, path, rows in (("--plans", plan, NEEDS_PLAN), ("--gans", gan, NEEDS_GAN)):
        if row in rows and path is None:
            raise ValueError(
                f"table2: {option} is not given, expected its folder for row {row}. Give it, or leave the row out of "
                "--rows."
            )
        if row in rows and path is not None and not path.is_file():
            raise ValueError(
                f"table2: {path} is missing, expected it for row {row}. Train it, or leave the row out."
            )
    if plan is not None and not plan.is_file():
        plan = None
    textures = options.textures if variant == "wildlife" else None
    if variant == "wildlife" and textures is None:
        raise ValueError(
            "table2: --textures is not given, expected it for variant wildlife. Give it, or another --variant."
        )
    inputs = Inputs(options.data, textures, plan, gan if row in NEEDS_GAN else None)
    audit = options.audit if seed == 0 and plan is not None else 0
    return cells.Cell(config, inputs, audit=audit, device=options.device)


def _settings(options: Table2) -> dict[str, Any]:
    """What all cells have in common, and the plans by variant."""
    shared = to_dict(from_texts(ClassifierConfig("original", VARIANTS[0]), options.settings))
    for key in ("row", "variant", "seed"):
        del shared[key]
    found: dict[str, Any] = shared | {"audit": options.audit}
    for variant in options.variants:
        plan = options.plans / f"{variant}.plan" if options.plans else None
        if plan is not None and plan.is_file():
            found[f"plan.{variant}"] = cells.plan_digest(plan)
    return found


def summary(done: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One row on one variant, from its seeds."""
    names = [
        name for name in ("train", "train_domain", "test", "counterfactual", "seconds") if name in done[0]
    ]
    found: dict[str, Any] = {name: cells.mean_std([cell[name] for cell in done]) for name in names}
    if "audit" in done[0]:
        found["audit"] = done[0]["audit"]
    return found


def table(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The table as Markdown, the paper's figures in brackets."""
    rows = list(dict.fromkeys(row for variant in results.values() for row in variant))
    head = ["accuracy, % (paper)"]
    head += [f"{variant}, {kind}" for variant in results for kind in ("train", "test")]
    lines = [head]
    for row in rows:
        line = [TITLES[row]]
        for variant, of_rows in results.items():
            for k, kind in enumerate(("train", "test")):
                found = percent(of_rows[row][kind]) if row in of_rows else ""
                theirs = paper.table2(variant, row)
                line.append(f"{found} ({theirs[k]})" if found and theirs else found)
        lines.append(line)
    return markdown(lines)
