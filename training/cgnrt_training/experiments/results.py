"""`docs/results.json`: the runs that the project stands by, and the page that is generated from it.

The page is a pure function of the JSON (`page`), so that a number in the docs is a number that a run has given.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cgnrt._support.reading import read_text
from cgnrt.errors import CgnrtError

from ..runs.folder import write_text
from . import plots
from .results_page import page
from .table3_4 import plots as plots_table3_4

EXPERIMENTS = ("table2", "fig7", "table5", "fig6", "table1", "table3", "table4", "evaluate")
_DRAWN = {
    "table2": plots.draw_table2,
    "fig7": plots.draw_fig7,
    "table5": plots.draw_table5,
    "table3": plots_table3_4.draw_table3,
    "table4": plots_table3_4.draw_table4,
}
_IN_PARTS = ("fig6", "table3", "table4", "evaluate")  # whose runs stand for a part of the results each
_RECORD = ("settings", "command", "seeds", "wall_s", "machine", "versions", "commit")


def publish(runs: Sequence[Path], docs: Path) -> Path:
    """Merge experiments' JSON files into `docs/results.json`, then write `docs/results.md` and `docs/results/*.png`.

    Args:
      runs: `<name>.json` of experiments; none writes the page anew, as after a change of the notes.
      docs: the folder. Its `results.json` keeps what the runs do not replace, and `notes` (experiment -> a list of
        paragraphs, written by hand), which are printed in their experiment's section.
    Returns:
      The path of `results.md`.
    Raises:
      CgnrtError: a file is unreadable or no experiment; nothing is written then.
    """
    path = docs / "results.json"
    content = read_json(path) if path.exists() else {}
    for run in runs:
        content = merge(content, read_json(run))
    content["plots"] = sorted(set(content.get("plots", [])) & _published(docs))
    pictures = docs / "results"
    pictures.mkdir(parents=True, exist_ok=True)
    for run in runs:
        name = read_json(run)["experiment"]
        target = pictures / f"{name}.png"
        if name in _DRAWN:
            _DRAWN[name](content[name], target)  # all that is known, not the last run alone
        elif run.with_suffix(".png").is_file():
            shutil.copyfile(run.with_suffix(".png"), target)
        if target.is_file():
            content["plots"] = sorted({*content["plots"], name})
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    write_text(path, text)
    write_text(docs / "results.md", page(json.loads(text)))  # of what the file says, in its order
    return docs / "results.md"


def _published(docs: Path) -> set[str]:
    return {path.stem for path in (docs / "results").glob("*.png")}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
      CgnrtError: the file is unreadable, or holds something else.
    """
    try:
        content = json.loads(read_text(path))
    except OSError as error:
        raise CgnrtError(
            f"load '{path}': file is unreadable ({error.strerror}), expected results. Check the path."
        ) from error
    except ValueError as error:
        raise CgnrtError(
            f"load '{path}': content is not JSON ({error}), expected results. Run the experiment again."
        ) from error
    if not isinstance(content, dict):
        raise CgnrtError(
            f"load '{path}': content is not an object, expected results. Run the experiment again."
        )
    return content


def merge(content: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Published results with one run's in their place.

    Table 2 is merged row by row, Fig. 6 by number of latents, Tables 3 and 4 by what the classifiers begin with, and
    evaluations by plan. Each keeps the record of every run that still stands for some of its numbers. The others are
    one run each.

    Raises:
      CgnrtError: `run` is not an experiment.
    """
    name = run.get("experiment")
    if name not in EXPERIMENTS or not isinstance(run.get("results"), Mapping):
        raise CgnrtError(
            f"merge results: experiment is {name!r}, expected one of {', '.join(EXPERIMENTS)} with its results. "
            f"Pass the JSON that the experiment wrote."
        )
    if missing := [key for key in _RECORD if key not in run]:
        raise CgnrtError(f"merge results: {name} has no {', '.join(missing)}, expected them. Run it again.")
    new = json.loads(json.dumps(content))  # a copy of plain values
    results = run["results"]
    covers = _covers(name, results)
    records = new.setdefault("runs", {}).setdefault(name, [])
    for record in records:
        record["covers"] = [part for part in record["covers"] if part not in covers]
    records[:] = [record for record in records if record["covers"] and name in ("table2", *_IN_PARTS)]
    records.append({key: run[key] for key in _RECORD} | {"covers": covers})
    if name == "table2":
        for variant, rows in results.items():
            new.setdefault(name, {}).setdefault(variant, {}).update(rows)
    elif name in _IN_PARTS:
        new.setdefault(name, {}).update(results)
    else:
        new[name] = results
    return dict(new)


def _covers(name: str, results: Mapping[str, Any]) -> list[str]:
    """Names of the parts that a run stands for."""
    if name == "table2":
        return [f"{variant}/{row}" for variant, rows in results.items() for row in rows]
    return list(results) if name in _IN_PARTS else ["all"]
