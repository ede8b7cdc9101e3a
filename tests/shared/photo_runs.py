"""Photos of coloured objects, and a plan of their classes, on which classifiers train in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from cgnrt.plan import BankContents, write_bank

CLASSES = {"blue": (30, 30, 230), "green": (30, 230, 30), "red": (230, 30, 30)}  # sorted, as folders are
SIZE = 32


def write_photos(
    folder: Path, per_class: int = 4, splits: tuple[str, ...] = ("train", "val")
) -> tuple[Path, Path]:
    """Folders of photos and of masks: a square of the class' colour on noise."""
    random = np.random.default_rng(0)
    for split in splits:
        for name, colour in CLASSES.items():
            for k in range(per_class):
                picture = random.integers(0, 90, (SIZE, SIZE, 3)).astype(np.uint8)
                mask = np.zeros((SIZE, SIZE), np.uint8)
                top, left = random.integers(2, 18, 2)
                mask[top : top + 11, left : left + 11] = 255
                picture[mask > 0] = colour
                for kind, pixels in (("images", picture), ("masks", mask)):
                    path = folder / kind / split / name / f"{k}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(path)
    return folder / "images", folder / "masks"


def write_plan(path: Path, names: tuple[str, ...] = ("red", "green", "blue"), size: int = SIZE) -> Path:
    """A plan of banks, whose classes come in another order than the photos'."""
    colours = np.array([CLASSES.get(name, (128, 128, 128)) for name in names], np.uint8)
    labels = np.arange(len(names))
    plain = np.ascontiguousarray(np.broadcast_to(colours[:, :, None, None], (len(names), 3, size, size)))
    masks = np.zeros((len(names), 1, size, size), np.uint8)
    for k in labels:
        masks[k, :, 4 : 14 + 4 * k, 6:20] = 255
    write_bank(
        path,
        shape=BankContents(masks, labels, names),
        texture=BankContents(plain, labels, names),
        background=BankContents(plain // 2, labels, names),
        force=True,
    )
    return path
