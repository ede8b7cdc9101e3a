"""Cells of Tables 3 and 4 over seeds: means, spreads, and differences from Original's of the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..cells import mean_std
from .measures import Found

BASE = "original"  # the row that others are compared with
_DIFFERENCES = ("original", "only_background", "shape_bias", "follows_background")


def against_base(by_row: Mapping[str, Sequence[Found]]) -> dict[str, list[Found]]:
    """The cells, seed by seed, and what each answer of a row has beside Original's of the same seed.

    Added are `<column>_minus_original`, and `bg_gap_over_original` where Original has a gap. Without Original nothing
    is.
    """
    return {
        row: [
            {
                answer: values
                | ({} if row == BASE or BASE not in by_row else _compared(values, by_row[BASE][k]["mean"]))
                for answer, values in cell.items()
            }
            for k, cell in enumerate(cells)
        ]
        for row, cells in by_row.items()
    }


def _compared(values: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    found = {
        f"{column}_minus_original": values[column] - base[column]
        for column in _DIFFERENCES
        if column in values and column in base
    }
    if "shape_bias_minus_original" in found:  # what is not the shape's is the texture's
        found["texture_bias_minus_original"] = -found["shape_bias_minus_original"]
    if base.get("bg_gap", 0) > 0:
        found["bg_gap_over_original"] = values["bg_gap"] / base["bg_gap"]
    return found


def summary(by_row: Mapping[str, Sequence[Found]]) -> dict[str, dict[str, list[float]]]:
    """Mean and standard deviation over seeds, by row and answer: "original+cgn" is the mean's answer, and
    "original+cgn/shape" a head's. A column that a seed does not have is left out."""
    return {
        row if answer == "mean" else f"{row}/{answer}": {
            key: mean_std([cell[answer][key] for cell in cells])
            for key in cells[0][answer]
            if all(key in cell[answer] for cell in cells)
        }
        for row, cells in by_row.items()
        for answer in cells[0]
    }


def columns(table: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a table has of a row; nothing if the row was not audited, for Table 3."""
    audited = {
        k: v
        for k, v in values.items()
        if k.startswith(("shape_bias", "texture_bias", "follows_", "changes_"))
    }
    if table == "table4":
        return {key: value for key, value in values.items() if key not in audited}
    return {"original": values["original"], **audited} if audited else {}
