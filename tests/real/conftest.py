"""Photos that tell where each pixel came from: discs on striped grounds, every photo in colours of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Photos:
    """uint8 (n, h, w, 3), float32 masks (n, 1, h, w); object and ground of photo i have red 200 + i and 20 + i."""

    images: Array
    masks: Array

    def donors(self, images: Array, at: tuple[int, int]) -> list[int]:
        """Which photo gave the pixel `at` of each image, by its red."""
        return [int(red) % 20 for red in images[:, at[0], at[1], 0]]


def make_photos(n: int = 5, h: int = 72, w: int = 96) -> Photos:
    y, x = np.mgrid[:h, :w]
    images = np.zeros((n, h, w, 3), np.uint8)
    masks = np.zeros((n, 1, h, w), np.float32)
    for i in range(n):
        inside = (y - h * 0.5) ** 2 + (x - w * 0.3) ** 2 < (h * 0.3) ** 2
        images[i, ..., 0] = np.where(inside, 200 + i, 20 + i)
        images[i, ..., 1] = np.where(inside, 100 + 10 * (y % 8 < 4), 30 + x % 5)
        images[i, ..., 2] = 5 * i
        masks[i, 0] = inside
    return Photos(images, masks)


@pytest.fixture
def photos() -> Photos:
    return make_photos()
