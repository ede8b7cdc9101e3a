"""Tables 3 and 4 on photos: does a classifier look at shape or texture, and does it lean on the background?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import torch

import cgnrt

from ..checkpoints import save
from ..ensemble.config import EnsembleConfig
from ..ensemble.files import about
from ..ensemble.measure import accuracies, answers_of
from ..ensemble.model import Ensemble
from ..ensemble.sources import open_generator, places_of
from ..ensemble.testsets import SETS, TestSets
from ..ensemble.train import Inputs, train
from ..runs.loop import progress_bar
from ..settings import to_dict
from . import plots_table3_4 as plots
from . import table3_4_text as text
from .cells import mean_std, open_folder, timed, write_experiment
from .workers import run_cells

_AUDITED = ("mean", "shape", "texture", "background")
_AUDIT_SEED = 1 << 20  # no training stream has it


@dataclass(frozen=True, kw_only=True)
class Table34:
    """What is to be run.

    Attributes:
      inputs: photos with masks to train on and to test on, the plan, and the backbone's weights.
      config: of every row, apart from the row and the seed.
      audit: samples of each audit with the plan; 0 leaves them out.
      command: the words after `cgnrt-train`, for the record.
    """

    inputs: Inputs
    config: EnsembleConfig
    output: Path
    rows: Sequence[str]
    seeds: int
    audit: int
    device: torch.device
    command: Sequence[str]

    @property
    def begins(self) -> str:
        """What the classifiers begin with: "pretrained" or "scratch"."""
        return "scratch" if self.inputs.weights is None else "pretrained"


def run(options: Table34, log: TextIO) -> Path:
    """Train and measure the missing classifiers, then write `table3.json`, `table4.json`, their `.md` and `.png`.

    Returns:
      The path of `table4.json`. Its results are `begins -> row -> set -> [mean, standard deviation]`, accuracies as
      fractions; those of `table3.json` likewise with the shape bias and what answers follow.
    Raises:
      ValueError: photos have no masks or no val, or the folder's cells have other settings or files.
      CgnrtError: a cell failed.
    """
    inputs = options.inputs
    if inputs.judged is None:
        raise ValueError("table3-4: val/ is missing in --images, expected photos to test on.")
    sets = TestSets(inputs.judged)
    settings = to_dict(options.config) | {
        "audit": options.audit,
        "photos.train": len(inputs.photos),
        **{f"test.{name}": size for name, size in sets.sizes().items()},
        **{name: source["sha256"] for name, source in inputs.sources.items()},
    }
    for key in ("row", "seed"):
        del settings["train"][key]
    folder = open_folder(options.output, settings)

    def work(name: str, config: EnsembleConfig, cells: Path) -> dict[str, Any]:
        return _cell(options, name, config, sets, cells, log)

    todo = {
        f"{row}.{seed}": replace(options.config, train=replace(options.config.train, row=row, seed=seed))
        for seed in range(options.seeds)  # whole tables first, so that an interrupted run has one
        for row in options.rows
    }
    with timed(options.output):
        done = run_cells(work, todo, folder, jobs=0, log=log)
    by_row = {
        row: [done[f"{row}.{seed}"]["answers"] for seed in range(options.seeds)] for row in options.rows
    }
    found = {options.begins: summary(by_row)}
    path = options.output
    for name, draw in (("table3", plots.draw_table3), ("table4", plots.draw_table4)):
        results = {
            begins: {row: values for row, cells in rows.items() if (values := _columns(name, cells))}
            for begins, rows in found.items()
        }
        path = write_experiment(
            options.output,
            name,
            results,
            text.TABLES[name](results),
            settings=settings,
            seeds=range(options.seeds),
            command=options.command,
        )
        draw(results, path.with_suffix(".png"))
    return path


def _cell(
    options: Table34, name: str, config: EnsembleConfig, sets: TestSets, folder: Path, log: TextIO
) -> dict[str, Any]:
    """Train and measure one classifier; its weights stay beside the result."""
    begin = time.perf_counter()
    model, result = train(config, replace(options.inputs, judged=None), None, log=log, device=options.device)
    seconds = time.perf_counter() - begin
    answers: dict[str, dict[str, Any]] = {answer: {} for answer in answers_of(model)}
    for kind in SETS:
        for answer, value in accuracies(model, sets.parts(kind)).items():
            answers[answer][kind] = value
    for found in answers.values():
        found["bg_gap"] = found["mixed_same"] - found["mixed_rand"]
    if options.audit:
        for answer, audited in _audits(options, model).items():
            answers[answer] |= audited
    photos = options.inputs.photos
    weights = about(config, photos.classes, photos.size, options.inputs.sources)
    save(weights | {"step": result["steps"], "model": model.state_dict()}, folder / f"{name}.pt")
    return {
        "answers": answers,
        "steps": result["steps"],
        "train_s": round(seconds, 1),
        "wall_s": round(time.perf_counter() - begin, 1),
    }


def _audits(options: Table34, model: Ensemble) -> dict[str, dict[str, float]]:
    """What each answer follows on the plan's counterfactuals, and its shape bias."""
    generator = open_generator(options.inputs.plan, options.inputs.photos.size, options.device)
    # The answers are indices of the photos' classes, the audit's those of the plan's.
    order, *_ = places_of(generator, options.inputs.photos.classes)
    columns = torch.from_numpy(order)
    audited = {}
    chosen = [answer for answer in answers_of(model) if answer in _AUDITED]
    with progress_bar(len(chosen), 0, "audit") as progress:
        for answer in chosen:
            asked = answers_of(model)[answer].eval()

            def classify(images: torch.Tensor, asked: Any = asked) -> torch.Tensor:
                found: torch.Tensor = asked(images.to(options.device, memory_format=torch.channels_last))
                return found[:, columns.to(found.device)]

            found = cgnrt.audit(classify, generator, options.audit, seed=_AUDIT_SEED, inputs="torch")
            follows, changes = found.follows, found.changes
            audited[answer] = {
                "shape_bias": shape_bias(follows.shape.count, follows.texture.count),
                **{f"follows_{name}": rate.value for name, rate in follows._asdict().items()},
                **{f"changes_{name}": rate.value for name, rate in changes._asdict().items()},
            }
            progress.update()
    return audited


def shape_bias(shape: int, texture: int) -> float:
    """Of the answers that are the shape's or the texture's label, the share that is the shape's (Geirhos et al., 2019).

    The counts are of images with independent labels, and include the few images whose two labels agree. Without such an
    answer it is 0.5.
    """
    return shape / (shape + texture) if shape + texture else 0.5


def summary(by_row: Mapping[str, Sequence[Mapping[str, Mapping[str, float]]]]) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation over seeds, by row and answer: "original+cgn" is the mean's answer, and
    "original+cgn/shape" a head's."""
    return {
        row if answer == "mean" else f"{row}/{answer}": {
            key: mean_std([cell[answer][key] for cell in cells]) for key in cells[0][answer]
        }
        for row, cells in by_row.items()
        for answer in cells[0]
    }


def _columns(table: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a table has of a row; nothing if the row was not audited, for Table 3."""
    if table == "table4":
        return {name: values[name] for name in (*SETS, "bg_gap")}
    kept = {
        key: value for key, value in values.items() if key.startswith(("shape_bias", "follows_", "changes_"))
    }
    return {"original": values["original"], **kept} if kept else {}
