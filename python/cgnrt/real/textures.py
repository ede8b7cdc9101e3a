"""Textures of photos' objects, as large as the photos."""

from __future__ import annotations

import numpy as np

from cgnrt import ops
from cgnrt.real.fill import fill_from, free_rectangle
from cgnrt.real.photos import OBJECT

WORKING_SIZE = 128  # side of the pictures that patches are cut from (in the authors' code)


def shrink(
    masks: np.ndarray, pixels: np.ndarray, size: int, clamp: tuple[float, float], threads: int
) -> np.ndarray:
    """Masks and photos at the size from which patches are cut, scaled bicubically.

    Args:
      masks: float32 (n, 1, h, w) in [0, 1].  pixels: float32 (n, 3, h, w), their range is `clamp`.
    Returns:
      float32 (n, 4, size, size), the mask first.
    """
    small = ops.resize(masks, size, clamp=(0.0, 1.0), threads=threads)
    return np.concatenate([small, ops.resize(pixels, size, clamp=clamp, threads=threads)], 1)


def patches(pixels: np.ndarray, mask: np.ndarray, picks: np.ndarray) -> np.ndarray:
    """A patch grid of a photo's object (App. C.2), uint8 (3, h, w).

    Args:
      pixels: float32 (3, h, w) in [0, 255].  mask: float32 (h, w) in [0, 1].
      picks: (36,) of `cgnrt.sampling.patch_picks`.
    """
    working = shrink(mask[None, None], np.ascontiguousarray(pixels[None]), WORKING_SIZE, (0.0, 255.0), 1)
    grid = ops.patch_grid(
        np.ascontiguousarray(working[:, :1]),
        np.ascontiguousarray(working[:, 1:]),
        picks[None],
        size=mask.shape,
        clamp=(0.0, 255.0),
        dtype="uint8",
        threads=1,
    )
    return np.asarray(grid[0])


def filled(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """A photo whose object goes on beyond its outline, float32 (3, h, w): what `fill_object` does to the background.

    Returns:
      None if no rectangle within the object has at least 1/16 of the photo's height and width.
    """
    outside = (mask < OBJECT).astype(np.float32)
    rectangle = free_rectangle(outside)
    return None if rectangle is None else fill_from(pixels, outside, rectangle)
