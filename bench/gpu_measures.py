"""What is asked of a GPU, and whether a figure does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """One row of the last table.

    Attributes:
      aim: a figure, or in words what the section that measures it decides.
      lower: the smaller the better.
    """

    key: str
    what: str
    at_least: float
    aim: float | str
    unit: str = ""
    lower: bool = False

    def verdict(self, value: float, aim_met: bool | None = None) -> str:
        """Say "aim met", "met" or "missed".

        Args:
          aim_met: what the section decided, where the aim is in words.
        """
        if not self._reaches(value, self.at_least):
            return "missed"
        if isinstance(self.aim, str):
            return "aim met" if aim_met else "met"
        return "aim met" if self._reaches(value, self.aim) else "met"

    def show(self, bound: float | str) -> str:
        """A bound as the table has it."""
        return bound if isinstance(bound, str) else f"{bound:g}{self.unit}"

    def _reaches(self, value: float, bound: float) -> bool:
        return value <= bound if self.lower else value >= bound


MEASURES = (
    Measure(
        "compose",
        "compose, 256 px, n = 1024, float16 out, pools larger than L2: bytes over the copy bandwidth",
        0.85,
        0.95,
    ),
    Measure("patch_grid", "patch_grid fused into the blend, against the same steps in torch", 10, 30, " x"),
    Measure(
        "imagenet",
        "ImageNet counterfactuals/s, 256 px, fp16/bf16 at >= 35 dB, against the eager fp32 loop",
        8,
        20,
        " x",
    ),
    Measure(
        "compiled",
        "the same against torch.compile max-autotune bf16 of only the needed work",
        1.3,
        2,
        " x",
    ),
    Measure(
        "matrix_rate",
        "share of the measured bf16 matrix rate, on the multiply-adds of the rewritten graphs",
        0.25,
        0.5,
    ),
    Measure("pool", "pool of reuse 32 at 256 px, against reuse 1", 25, "bandwidth-bound", " x"),
    Measure(
        "mnist", "MNIST counterfactuals/s, reuse 1, against the eager loop on the same card", 20, 100, " x"
    ),
    Measure(
        "training",
        "training step of a ResNet-50, half of each batch streamed, against tensors on the device",
        1.10,
        1.03,
        " x",
        lower=True,
    ),
)


def summary_rows(results: Iterable[Mapping[str, Any]], *, dry: bool) -> list[dict[str, str]]:
    """A row for each measure, in their order.

    Args:
      results: of all sections: {"measure", "value", "aim_met", "note"} or {"measure", "not_run"}. A measure without
        any was not run; of two, the last counts.
      dry: show that it was run, and no figure.
    """
    found = {result["measure"]: result for result in results}
    rows = []
    for measure in MEASURES:
        result = found.get(measure.key, {"not_run": "its section was not run"})
        if "not_run" in result:
            figure, verdict, note = "", "not run", result["not_run"]
        elif dry:
            figure, verdict, note = "dry run", "dry run", result["note"]
        else:
            figure = f"{result['value']:.3g}{measure.unit}"
            verdict = measure.verdict(result["value"], result["aim_met"])
            note = result["note"]
        bound = "at most " if measure.lower else ""
        rows.append(
            {
                "what": measure.what,
                "measured": figure,
                "at least": bound + measure.show(measure.at_least),
                "aim": measure.show(measure.aim),
                "verdict": f"{verdict}: {note}" if verdict == "not run" else verdict,
                "by": "" if verdict == "not run" else note,
            }
        )
    return rows
