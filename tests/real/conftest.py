"""Photos that tell where each pixel came from: discs on striped grounds, every photo in colours of its own.

And folders as ImageNet-9 and Cue Conflict have them, of pictures whose colour tells their groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

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


GROUPS = (
    "dog",
    "bird",
    "wheeled vehicle",
    "reptile",
    "carnivore",
    "insect",
    "musical instrument",
    "primate",
    "fish",
)
CATEGORIES = (
    "airplane",
    "bear",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "car",
    "cat",
    "chair",
    "clock",
    "dog",
    "elephant",
    "keyboard",
    "knife",
    "oven",
    "truck",
)
KNOWN_SIDE = 8


def paint(path: Path, red: int, green: int) -> None:
    """A picture of one colour; its content is a PNG's, whatever its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((KNOWN_SIDE, KNOWN_SIDE, 3), (red, green, 0), np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")


@pytest.fixture
def in9_folder(tmp_path: Path) -> Path:
    """ImageNet-9's sets, four pictures of each group: red is 20 times the object's group, green the background's."""
    backgrounds: dict[str, Callable[[int, int], int]] = {
        "original": lambda group, k: group,
        "mixed_same": lambda group, k: group,
        "mixed_rand": lambda group, k: (group + k) % 9,
        "mixed_next": lambda group, k: (group + 1) % 9,
        "only_fg": lambda group, k: 12,
    }
    folder = tmp_path / "bg_challenge"
    for name, ground in backgrounds.items():
        for group, title in enumerate(GROUPS):
            for k in range(4):
                file = folder / name / "val" / f"{group:02}_{title}" / f"n{group}_{k}.JPEG"
                paint(file, 20 * group, 20 * ground(group, k))
    return folder


@pytest.fixture
def cue_folder(tmp_path: Path) -> Path:
    """Cue Conflict: red is 15 times the shape's category, green the texture's; 16 x 3 conflicts, and 16 without."""
    folder = tmp_path / "style-transfer-preprocessed-512"
    for shape, name in enumerate(CATEGORIES):
        for step in range(4):
            texture = (shape + 5 * step) % 16
            file = folder / name / f"{name}{step + 8}-{CATEGORIES[texture]}{step + 1}.png"
            paint(file, 15 * shape, 15 * texture)
    return folder
