"""Objects at other places: masks and pictures that are scaled about the middle of the picture, and moved."""

from __future__ import annotations

import numpy as np


def moved(planes: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Pictures at other places, bilinear; zero where they come from outside the picture.

    Args:
      planes: (n, c, h, w) float32.
      place: (n, 4) float32: (dy, dx, scale, flip) of each, in pixels; flip is 1 for mirrored left to right.
    """
    found = np.empty_like(planes)
    for picture, (dy, dx, scale, flip), out in zip(planes, place, found, strict=True):
        height, width = picture.shape[1:]
        first, weight, inside = _taps(height, dy, scale, False)
        rows = _between(picture[:, first], picture[:, np.minimum(first + 1, height - 1)], weight[:, None])
        rows[:, ~inside] = 0
        first, weight, inside = _taps(width, dx, scale, bool(flip))
        out[...] = _between(rows[:, :, first], rows[:, :, np.minimum(first + 1, width - 1)], weight)
        out[:, :, ~inside] = 0
    return found


def _taps(
    extent: int, shift: np.float32, scale: np.float32, flip: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where rows or columns of a result come from: the first of two, the second one's weight, and whether at all."""
    last = np.float32(extent - 1)
    middle = last / 2
    source = (np.arange(extent, dtype=np.float32) - middle - shift) / scale
    source = (-source if flip else source) + middle
    inside = (source >= -0.5) & (source <= last + 0.5)
    source = np.clip(source, 0, last)
    first = source.astype(np.int64)
    return first, (source - first).astype(np.float32), inside


def _between(one: np.ndarray, other: np.ndarray, weight: np.ndarray) -> np.ndarray:
    found: np.ndarray = one + weight * (other - one)
    return found
