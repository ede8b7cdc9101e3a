"""Run Tables 3 and 4: train what is not trained, measure what is not measured, and write both tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import torch

from ...ensemble.config import EnsembleConfig
from ...ensemble.testsets import TestSets
from ...ensemble.train import Inputs
from ...settings import to_dict
from ..cells import open_folder, timed, write_experiment
from ..workers import run_cells
from . import plots, text
from .cell import Cells
from .measures import Measure, PlaceAudit, PlanAudit, SetAccuracies
from .summary import against_base, columns, summary


@dataclass(frozen=True, kw_only=True)
class Table34:
    """What is to be run.

    Attributes:
      inputs: photos with masks to train on and to test on, the plan, and the backbone's weights.
      config: of every row, apart from the row and the seed.
      audit: samples of each audit with the plan; 0 leaves them out.
      places: photos of val whose objects are moved and scaled, for centre and size bias; 0 leaves them out.
      command: the words after `cgnrt-train`, for the record.
    """

    inputs: Inputs
    config: EnsembleConfig
    output: Path
    rows: Sequence[str]
    seeds: int
    audit: int
    places: int
    device: torch.device
    command: Sequence[str]

    @property
    def begins(self) -> str:
        """What the classifiers begin with: "pretrained" or "scratch"."""
        return "scratch" if self.inputs.weights is None else "pretrained"


def run(options: Table34, log: TextIO) -> Path:
    """Train and measure what is missing, then write `table3.json`, `table4.json`, their `.md` and `.png`.

    Returns:
      The path of `table4.json`. Its results are `begins -> row -> column -> [mean, standard deviation]`, accuracies as
      fractions; those of `table3.json` likewise with the shape bias and what answers follow.
    Raises:
      ValueError: photos have no masks or no val, or the folder's cells have other settings or files.
      CgnrtError: a cell failed.
    """
    inputs = options.inputs
    settings = to_dict(options.config) | {
        "photos.train": len(inputs.photos),
        **{name: source["sha256"] for name, source in inputs.sources.items()},
    }
    for key in ("row", "seed"):
        del settings["train"][key]
    measures = _measures(options)
    folder = open_folder(options.output, settings)
    cells = Cells(folder, inputs, options.device, measures, log)
    todo = {
        f"{row}.{seed}": replace(options.config, train=replace(options.config.train, row=row, seed=seed))
        for seed in range(options.seeds)  # whole tables first, so that an interrupted run has one
        for row in options.rows
    }
    with timed(options.output):
        done = run_cells(cells.complete, todo, folder, jobs=0, log=log, done=cells.done)
    by_row = {
        row: [cells.answers(name, done[name]) for name in (f"{row}.{k}" for k in range(options.seeds))]
        for row in options.rows
    }
    rows = summary(against_base(by_row))
    path = options.output
    for name, draw in (("table3", plots.draw_table3), ("table4", plots.draw_table4)):
        results = {
            options.begins: {row: kept for row, values in rows.items() if (kept := columns(name, values))}
        }
        path = write_experiment(
            options.output,
            name,
            results,
            "\n\n".join(text.parts(name, results)),
            settings=settings | {"measures": {measure.name: measure.settings for measure in measures}},
            seeds=range(options.seeds),
            command=options.command,
        )
        draw(results, path.with_suffix(".png"))
    return path


def _measures(options: Table34) -> list[Measure]:
    """What is to be measured of each classifier.

    Raises:
      ValueError: there is nothing to measure on, or the photos have no masks.
    """
    inputs = options.inputs
    if inputs.judged is None:
        raise ValueError("table3-4: val/ is missing in --images, expected photos to test on.")
    found: list[Measure] = [SetAccuracies(TestSets(inputs.judged), inputs.judged)]
    if options.audit:
        assert inputs.plan is not None  # the command needs it
        found.append(PlanAudit(inputs.plan, inputs.photos, options.audit, options.device))
    if options.places:
        found.append(PlaceAudit(inputs.judged, options.places))
    return found
