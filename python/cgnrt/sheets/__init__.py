"""Sheets: labelled pictures of samples, of each mechanism's outputs (App. D.1) and of interpolations (App. D.2)."""

from __future__ import annotations

from cgnrt.sheets.gif import write_gif
from cgnrt.sheets.layout import picture_grid
from cgnrt.sheets.samples import (
    MOVES,
    contact_sheet,
    interpolation_frames,
    interpolation_sheet,
    mechanism_sheet,
    truncation_sheet,
)

__all__ = [
    "MOVES",
    "contact_sheet",
    "interpolation_frames",
    "interpolation_sheet",
    "mechanism_sheet",
    "picture_grid",
    "truncation_sheet",
    "write_gif",
]
