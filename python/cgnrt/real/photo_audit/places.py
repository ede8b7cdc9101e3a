"""Where objects are put, and how large: the cells of a 3 x 3 grid, and factors of the object's area.

As for ForNet (Nauen et al., arXiv 2503.09399, "Center Bias" and "Size Bias"): in a cell an object has the share of the
cell that it had of the picture, so its sides are a third as long; a size factor multiplies its area. ForNet draws the
place in the cell, and the size; here objects are in the cell's middle, and of their own size.
"""

from __future__ import annotations

import math

import numpy as np

from cgnrt.real.photos import OBJECT, Masks

POSITIONS = (
    "top left",
    "top",
    "top right",
    "left",
    "centre",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
CORNERS, SIDES, CENTRE = POSITIONS[::2][:2] + POSITIONS[::2][3:], POSITIONS[1::2], POSITIONS[4]
SIZES = (0.25, 0.5, 1.0, 2.0, 4.0)

_CELL = 1 / 3  # the scale in a cell


class Places:
    """The rows (dy, dx, scale, flip) that put each photo's object somewhere, for `Parts.objects`."""

    def __init__(self, masks: Masks) -> None:
        height, width = masks.planes.shape[2:]
        self._size = np.array([height, width], np.float64)
        boxes = np.array([_box(mask) for mask in masks], np.float64).reshape(-1, 2, 2)
        # From the middle of the picture, about which objects are scaled.
        self._centre = boxes.mean(axis=2) - self._size / 2
        self._extent = boxes[:, :, 1] - boxes[:, :, 0]

    def at(self, position: str, photos: np.ndarray) -> np.ndarray:
        """Objects at a third of their size, the middle of each in the middle of a cell. float32 (m, 4)."""
        row, column = divmod(POSITIONS.index(position), 3)
        target = np.array([row - 1, column - 1]) * self._size / 3
        return self._rows(np.broadcast_to(target, (len(photos), 2)), _CELL, photos)

    def sized(self, factor: float, photos: np.ndarray) -> np.ndarray:
        """Objects of `factor` times their area, at their places, or as near as they are whole. float32 (m, 4)."""
        scale = math.sqrt(factor)
        # An object that is larger than the picture is in its middle.
        free = np.maximum(0, (self._size - scale * self._extent[photos]) / 2)
        return self._rows(np.clip(self._centre[photos], -free, free), scale, photos)

    def clipped(self, factor: float) -> np.ndarray:
        """The photos whose objects are larger than the picture at `factor` times their area, (N,) bool."""
        larger: np.ndarray = np.any(math.sqrt(factor) * self._extent > self._size, axis=1)
        return larger

    def _rows(self, target: np.ndarray, scale: float, photos: np.ndarray) -> np.ndarray:
        rows = np.zeros((len(photos), 4), np.float32)
        rows[:, :2] = target - scale * self._centre[photos]
        rows[:, 2] = scale
        return rows


def _box(mask: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """The object's rows and columns, the ends exclusive."""
    rows, columns = np.nonzero(mask >= OBJECT)
    return (int(rows.min()), int(rows.max()) + 1), (int(columns.min()), int(columns.max()) + 1)
