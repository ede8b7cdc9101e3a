"""Table 1: which losses a natural-image CGN needs. All on, then each of four off, on any cGAN."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from cgnrt._support.terminal import say

from ..features.files import load_classifier
from ..natural.checkpoints import load_natural
from ..natural.config import Config
from ..natural.model import NaturalCGN
from ..natural.networks import Files, Networks, load_networks
from ..natural.pictures import classes_of
from ..natural.scores import masks, measure
from ..natural.train import train
from ..runs.loop import progress_bar
from ..runs.pictures import Sheet, save_png
from ..runs.sources import source_of
from ..scoring.judge import Judge
from ..settings import to_dict
from .cells import open_folder, timed, write_experiment
from .table1_text import TITLES, table
from .workers import run_cells

_SHEET = ("start", "shape", "texture", "background", "none")  # columns of Fig. 33, where they were trained
_SAMPLES_OF_SHEET = 6


@dataclass(frozen=True, kw_only=True)
class Table1:
    """What is to be run.

    Attributes:
      config: of the first row; the others differ by the losses that are off.
      classifier: file of what the Inception score is taken with, over the cGAN's classes if ImageNet has each of their
        names, else over ImageNet's 1,000; None leaves the score out.
      samples: that each row is measured on.
      command: the words after `cgnrt-train`, for the record.
    """

    files: Files
    config: Config
    output: Path
    classifier: Path | None
    rows: Sequence[str]
    samples: int
    device: torch.device
    command: Sequence[str]


def run(options: Table1, log: TextIO) -> Path:
    """Train and measure the missing rows, then write `table1.json`, `table1.md` and `table1.png` (Fig. 33).

    Returns:
      The path of the JSON file; its results are those of `Scores` and `wall_s` by row, with `cgan` for the upper bound.
    Raises:
      CheckpointError: a file does not fit.
      ValueError: the folder's rows have other settings or files.
      CgnrtError: a row failed, as where a loss is not finite.
    """
    networks = load_networks(options.files, options.config, log)
    judge = None
    if options.classifier is None:
        say("Inception score: left out, no classifier is given (--classifier FILE)", log)
    else:
        classifier = load_classifier(options.classifier).to(options.device)
        judge = Judge.of_names(classifier, classes_of(networks.teacher))
        say(f"Inception score: by {judge.label}", log)
    settings = to_dict(options.config) | {
        "samples": options.samples,
        "classifier": None if options.classifier is None else source_of(options.classifier)["sha256"],
        **{option: source["sha256"] for option, source in networks.sources.items()},
    }
    folder = open_folder(options.output, settings)

    def work(row: str, _: Any, cells: Path) -> dict[str, Any]:
        return _row(options, row, networks, judge, cells, log)

    with timed(options.output):
        results = run_cells(work, dict.fromkeys([*options.rows, "cgan"]), folder, jobs=0, log=log)
        save_png(_masks(options, networks, folder), options.output / "table1.png")
    return write_experiment(
        options.output,
        "table1",
        results,
        table(results),
        settings=settings,
        seeds=[options.config.train.seed],
        command=options.command,
    )


def _row(
    options: Table1,
    row: str,
    networks: Networks,
    judge: Judge | None,
    folder: Path,
    log: TextIO,
) -> dict[str, Any]:
    begin = time.perf_counter()
    say(f"row: {TITLES[row]}", log)
    cgn = None
    if row != "cgan":
        config = options.config if row == "none" else options.config.without(row)
        # A row that was stopped goes on.
        resume = (folder / row / "resume.pt").exists()
        path = train(
            config,
            networks,
            folder / row,
            resume=resume,
            force=not resume,
            log=log,
            device=options.device,
        )
        cgn = load_natural(path).model.to(options.device)
    teacher = networks.teacher.to(options.device)
    with progress_bar(options.samples, 0, f"measure {row}") as progress:
        scores = measure(
            cgn,
            teacher,
            judge,
            samples=options.samples,
            seed=options.config.train.seed,
            truncation=options.config.train.truncation,
            progress=progress.update,
        )
    return scores.to_dict() | {"wall_s": round(time.perf_counter() - begin, 1)}


def _masks(options: Table1, networks: Networks, folder: Path) -> Sheet:
    """From left to right the start of training and the rows, as in Fig. 33."""
    columns, head = [], []
    for name in _SHEET:
        if name == "start":
            cgn = NaturalCGN.of_teacher(networks.teacher, networks.saliency)
        elif name in options.rows:
            cgn = load_natural(folder / name / "cgn.pt").model
        else:
            continue
        head.append({"start": "at the start", "none": "all losses"}.get(name, f"no {name} loss"))
        columns.append(
            masks(
                cgn.to(options.device),
                _SAMPLES_OF_SHEET,
                seed=options.config.train.seed,
                truncation=options.config.log.sheet_truncation,
                device=options.device,
            )
        )
    return Sheet([column.clamp(0, 1) for column in columns], head=head)
