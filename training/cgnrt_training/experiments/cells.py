"""What the classifier experiments share: cells, folders that are gone on with, and the record of a result."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from cgnrt._support.machine import describe_machine
from cgnrt._support.reading import read_text
from cgnrt.errors import CgnrtError

from ..classifier.config import ClassifierConfig
from ..classifier.sources import Inputs
from ..runs.folder import write_text
from ..settings import to_dict
from .workers import run_cells

# Paths of the command line that are shown by what they are: they mean nothing on another machine.
_PATHS = {
    "--data": "MNIST",
    "--textures": "TEXTURES",
    "--plans": "PLANS",
    "--plan": "PLAN",
    "--gans": "GANS",
    "--gan": "GAN",
    "--output": "OUTPUT",
    "--biggan": "BIGGAN",
    "--u2net": "U2NET",
    "--vgg": "VGG16",
    "--features": "FEATURES",
    "--classifier": "CLASSIFIER",
    "--images": "IMAGES",
    "--masks": "MASKS",
    "--weights": "WEIGHTS",
    "--predictors": "PREDICTOR",
}


@dataclass(frozen=True)
class Cell:
    """One classifier of an experiment."""

    config: ClassifierConfig
    inputs: Inputs
    audit: int = 0  # samples of the audit with `inputs.plan`; 0 leaves it out
    correlations: tuple[float, ...] = ()  # environments of test digits that accuracy is measured in too
    device: str = "cpu"  # what the classifier is trained on


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What an experiment of many classifiers is told.

    Attributes:
      seeds: how many classifiers there are of each kind.
      jobs: processes; 0 works in this one.
      settings: of `ClassifierConfig`, as texts "key=value", for all cells.
      command: the words after `cgnrt-train`, for the record.
    """

    data: Path
    output: Path
    textures: Path | None
    seeds: int
    jobs: int
    settings: Sequence[str]
    device: str
    command: Sequence[str]

    def run(
        self,
        name: str,
        cells: Mapping[str, Cell],
        settings: Mapping[str, Any],
        results: Callable[[dict[str, dict[str, Any]]], Any],
        table: Callable[[Any], str],
        log: TextIO,
    ) -> Path:
        """Train the missing cells, then write `<name>.json`, with all that is to be known, and `<name>.md`.

        Args:
          cells: by the name of each cell's file.
          settings: what all cells have in common.
          results: makes the experiment's results from those of the cells.
          table: makes Markdown from the results.
        Returns:
          The path of the JSON file.
        Raises:
          ValueError: the folder's cells have other settings.
          CgnrtError: a cell failed.
        """
        folder = open_folder(self.output, settings)
        with timed(self.output):
            done = run_cells(train_cell, cells, folder, jobs=self.jobs, log=log)
        found = results(done)
        return write_experiment(
            self.output,
            name,
            found,
            table(found),
            settings=settings,
            seeds=range(self.seeds),
            command=self.command,
        )


def train_cell(name: str, cell: Cell, folder: Path) -> dict[str, Any]:
    """Train and measure one classifier; its weights stay beside the result.

    Returns:
      What `classifier.train` measures; `audit` and `environments` (correlation -> accuracy) where the cell asks for
      them; `wall_s`.
    """
    from cgnrt import audit

    from ..classifier.model import save_classifier
    from ..classifier.sources import HELD_OUT_SEED, open_domain, open_generator, with_cues
    from ..classifier.train import accuracy_on, train
    from ..device import open_device

    begin = time.perf_counter()
    model, result = train(cell.config, cell.inputs, device=open_device(cell.device))
    if cell.audit:
        generator = open_generator(cell.inputs.plan)
        found = audit(model, generator, cell.audit, seed=HELD_OUT_SEED + 1, inputs="torch")
        result["audit"] = found.to_dict()
    if cell.correlations:
        test = open_domain(cell.config.variant, cell.inputs, "test")
        result["environments"] = {
            f"{c:g}": accuracy_on(model, with_cues(test, c, cell.config.seed)) for c in cell.correlations
        }
    save_classifier(model, to_dict(cell.config), folder / f"{name}.pt")
    return result | {"wall_s": round(time.perf_counter() - begin, 1)}


def open_folder(output: Path, settings: Mapping[str, Any]) -> Path:
    """The folder of the cells, whose `settings.json` holds what all of them have in common.

    A setting that is not in it yet (another variant's plan) is added.

    Raises:
      ValueError: a setting is another than the stored one.
      CgnrtError: the stored ones cannot be read.
    """
    path = output / "settings.json"
    stored: dict[str, Any] = {}
    if path.exists():
        try:
            stored = dict(json.loads(read_text(path)))
        except (OSError, ValueError, TypeError) as error:
            raise CgnrtError(
                f"load '{path}': content is damaged ({error}), expected an experiment's settings. "
                f"Take another folder."
            ) from error
    changed = [
        f"{key} ({stored[key]} -> {value})"
        for key, value in settings.items()
        if key in stored and stored[key] != value
    ]
    if changed:
        raise ValueError(
            f"run '{output}': settings are changed: {', '.join(changed)}, expected those of the folder's cells. "
            f"Leave them, or take another folder."
        )
    cells = output / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(stored | dict(settings), indent=2) + "\n")
    return cells


@contextmanager
def timed(output: Path) -> Iterator[None]:
    """Add the time of the block to the folder's `wall.json`, whether it ends well or not."""
    begin = time.perf_counter()

    def add() -> None:
        write_text(output / "wall.json", json.dumps(wall_s(output) + time.perf_counter() - begin) + "\n")

    try:
        yield
    except BaseException:
        with suppress(CgnrtError, OSError):  # which must not hide what came before
            add()
        raise
    add()


def wall_s(output: Path) -> float:
    """Seconds that commands have worked in the folder."""
    path = output / "wall.json"
    try:
        return float(json.loads(read_text(path)))
    except (OSError, ValueError, TypeError):
        return 0.0


def write_experiment(
    output: Path,
    name: str,
    results: Mapping[str, Any],
    table: str,
    *,
    settings: Mapping[str, Any],
    seeds: Sequence[int],
    command: Sequence[str],
    seconds: float | None = None,
) -> Path:
    """Write `<name>.json`, with all that is to be known of the run, and `<name>.md`.

    Args:
      seconds: that the run took; None: those that commands have worked in the folder.
      command: the words after `cgnrt-train`; the paths among them are replaced by what they stand for.
    Returns:
      The path of the JSON file.
    """
    record = {
        "experiment": name,
        "results": results,
        "settings": settings,
        "command": shown(command),
        "seeds": list(seeds),
        "wall_s": round(wall_s(output) if seconds is None else seconds, 1),
        "machine": describe_machine(),
        "versions": {package: importlib.metadata.version(package) for package in ("cgnrt", "numpy", "torch")}
        | {"python": platform.python_version()},
        "commit": _commit(),
    }
    path = output / f"{name}.json"
    write_text(path, json.dumps(record, indent=2) + "\n")
    write_text(output / f"{name}.md", table + "\n")
    return path


def shown(command: Sequence[str]) -> str:
    """A command line without paths of this machine."""
    words, option = ["cgnrt-train"], ""
    for word in (part for text in command for part in _split(text)):
        # An option may have several files; what comes after another word is not its value.
        words.append(_PATHS.get(option, word) if not word.startswith("--") else word)
        option = word if word.startswith("--") else option if option == "--predictors" else ""
    return shlex.join(words)


def _split(word: str) -> list[str]:
    option, equals, _ = word.partition("=")
    return word.split("=", 1) if equals and option in _PATHS else [word]


def mean_std(values: Sequence[float]) -> list[float]:
    """Mean and sample standard deviation (0 of a single value), to six digits."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return [round(statistics.fmean(values), 6), round(spread, 6)]


def plan_digest(plan: Path) -> str:
    """What a plan is recognised by.

    Raises:
      PlanError: it cannot be read.
    """
    from cgnrt.plan import Plan

    with Plan.open(plan) as opened:
        return opened.digest


def _commit() -> str:
    """The source's commit, where it is a git checkout."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # no git
        return "unknown"
    return found.stdout.strip() or "unknown"
