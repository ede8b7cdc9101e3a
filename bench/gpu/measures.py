"""What is asked of a GPU, and whether a figure does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """One row of the last table.

    Attributes:
      section: which one measures it.
      lower: the smaller the better.
    """

    key: str
    section: str
    what: str
    must: float
    aim: float
    unit: str = ""
    lower: bool = False

    def verdict(self, value: float) -> str:
        """Say "aim met", "met" or "missed"."""
        if self._reaches(value, self.aim):
            return "aim met"
        return "met" if self._reaches(value, self.must) else "missed"

    def _reaches(self, value: float, bound: float) -> bool:
        return value <= bound if self.lower else value >= bound


_COMPOSE = "compose, 256 px, float16 out, pools larger than L2: bytes over the copy bandwidth"
_GRID = "patch_grid fused into the blend, against the same steps in torch"
_IMAGENET = (
    "ImageNet-256 in fp16 at >= 35 dB, our rewritten form compiled, against the authors' loop (eager, TF32)"
)
_MATRIX = "share of the card's fp16 matrix rate, on the multiply-adds of the rewritten graphs"
_MNIST = "MNIST, graph or compiled at batch 4,096, against the eager networks at batch 100"
_TRAINING = "ResNet-50 step, half of each batch from a pool of reuse 32, against tensors on the device"
_MINUTES = "this script, all sections, build included"
MEASURES = (
    Measure("compose", "kernels", _COMPOSE, 0.90, 0.97),
    Measure("patch_grid", "kernels", _GRID, 6, 10, " x"),
    Measure("imagenet", "imagenet", _IMAGENET, 3, 5, " x"),
    Measure("matrix_rate", "imagenet", _MATRIX, 0.13, 0.2),
    Measure("mnist", "mnist", _MNIST, 8, 12, " x"),
    Measure("training", "imagenet", _TRAINING, 1.10, 1.03, " x", lower=True),
    Measure("minutes", "", _MINUTES, 9, 9, " min", lower=True),
)


def summary_rows(
    results: Mapping[str, Mapping[str, Any]], reasons: Mapping[str, str], *, dry: bool
) -> list[dict[str, str]]:
    """A row for each measure, in their order.

    Args:
      results: value and note of those that were measured, by their keys.
      reasons: why a section was not finished, by its name.
      dry: show that it was run, and no figure.
    """
    rows = []
    for measure in MEASURES:
        result = results.get(measure.key)
        if result is None:
            figure, note = "", reasons.get(measure.section, "its section was not run")
            verdict = "not run"
        elif dry:
            figure = verdict = "dry run"
            note = result["note"]
        else:
            figure = f"{result['value']:.3g}{measure.unit}"
            verdict, note = measure.verdict(result["value"]), result["note"]
        bound = "at most " if measure.lower else ""
        rows.append(
            {
                "what": measure.what,
                "measured": figure,
                "must": f"{bound}{measure.must:g}{measure.unit}",
                "aim": f"{measure.aim:g}{measure.unit}",
                "verdict": verdict,
                "note": note,
            }
        )
    return rows
