"""The worst examples of an audit: what was shown, and what the classifier answered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cgnrt._support.files import refuse_existing, written_beside
from cgnrt.real.photo_audit.kinds import SWAPS
from cgnrt.real.photo_audit.rates import Example
from cgnrt.sheets.fonts import Captions
from cgnrt.sheets.layout import fit, picture_grid, resized

_SMALLEST = 32  # pixels of a picture's side
_RIGHT, _WRONG, _INK = (36, 120, 66), (176, 42, 42), (255, 255, 255)


def write_sheet(examples: Sequence[Example], path: str | os.PathLike[str], *, tile: int, force: bool) -> None:
    """Write the examples into a PNG; the errors are those of `PhotoAudit.sheet`."""
    target = Path(path)
    if target.suffix != ".png":
        raise ValueError(f"sheet audit: output is '{target}', expected a name that ends in .png.")
    if tile < _SMALLEST:
        raise ValueError(f"sheet audit: tile is {tile}, expected at least {_SMALLEST}.")
    refuse_existing(target, force=force)
    if not examples:
        raise ValueError(
            "sheet audit: examples are missing, expected at least 1 photo that is right and is lost when something "
            "else changes. There is nothing to show."
        )
    if not examples[0].images:
        raise ValueError(
            "sheet audit: images of the examples are missing, expected the result of an audit. JSON does not keep "
            "them: run the audit again."
        )
    rows = [[_answered(example, kind.name, tile) for example in examples] for kind in SWAPS]
    sheet = picture_grid(
        rows,
        [kind.title for kind in SWAPS],
        tile,
        head=[[example.label, Path(example.name).name] for example in examples],
        corner=["class", "photo"],
    )
    with written_beside(target, force=force) as beside:
        sheet.save(beside, format="PNG")


def _answered(example: Example, kind: str, tile: int) -> np.ndarray:
    """A picture with the answer under it: green for the photo's class, red for another."""
    picture = resized(example.images[kind], tile)
    font = Captions(min(18, max(10, tile // 10)))
    strip = font.height + 6
    shown = Image.new(
        "RGB", (tile, picture.height + strip), _RIGHT if example.answers[kind] == example.label else _WRONG
    )
    shown.paste(picture, (0, 0))
    text = fit(example.answers[kind], tile - 6, font)
    font.draw(ImageDraw.Draw(shown), 3, picture.height + 2, text, _INK)
    return np.asarray(shown)
