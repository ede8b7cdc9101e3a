"""A sheet of counterfactuals of photos: what each was made of, and the result."""

from __future__ import annotations

import numpy as np
from PIL import Image

from cgnrt.real.swap import Counterfactuals
from cgnrt.sheets import picture_grid

_ROWS = ("shape", "mask", "texture", "background", "result")


def real_sheet(
    batch: Counterfactuals, photos: np.ndarray, masks: np.ndarray, *, tile: int = 128
) -> Image.Image:
    """A column for each counterfactual: the photo that gave the shape and its mask, those that gave texture and
    background, and the counterfactual.

    Args:
      batch: of at least one.
      photos: (N, h, w, 3) uint8, what it was made from.  masks: (N, 1, h, w) float32.
      tile: width of a picture on the sheet, in pixels.
    """
    shape, texture, background = batch.index.T
    grey = np.rint(masks[shape].transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    rows = [photos[shape], np.repeat(grey, 3, axis=3), photos[texture], photos[background], batch.images]
    return picture_grid([list(row) for row in rows], _ROWS, tile)
