"""`from_arrays`: photos that are in memory, as banks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cgnrt.banks.entries import FAMILY, Recipe, contents
from cgnrt.banks.storage import Storage
from cgnrt.plan import MECHANISMS, BankSource, write_bank
from cgnrt.real.photos import read_masks, read_pictures


def from_arrays(
    path: str | os.PathLike[str],
    images: Any,
    masks: Any,
    labels: Any,
    *,
    classes: Sequence[str] | None = None,
    texture: str = Recipe.texture,
    seed: int = Recipe.seed,
    range: Sequence[float] | None = None,
    sources: Sequence[BankSource] = (),
    store: str = "raw",
    quality: int | None = None,
    force: bool = False,
) -> str:
    """Write a plan of photos that are in memory; what is made of them is as for `from_folders`.

    Args:
      path: the plan to make.
      images: (n, 3, h, w) or (n, h, w, 3), uint8 or floats.
      masks: (n, 1, h, w) or (n, h, w): floats in [0, 1], bool, or uint8, where 255 is the object.
      labels: (n,) integers, the class of each.
      classes: the class names; None is the numbers.
      texture, seed: see `cgnrt.banks.Recipe`. Objects may be of any size.
      range: (low, high) of floats; None means (0, 1).
      sources: where the photos come from, for the manifest.
      store, quality: how pictures are stored, see `cgnrt.plan.write_bank`.
      force: replace an existing file.
    Returns:
      The plan's digest.
    Raises:
      TypeError, ValueError: an argument is not as above; a photo has no object, or no background; a class has no photo.
      PlanError: the file exists, or cannot be written.
    """
    recipe, storage = Recipe(texture, seed, 0, 1), Storage(store, quality)
    pictures = read_pictures(images, "bank", range)
    read = read_masks(masks, len(pictures), pictures.size, "bank")
    low, high = pictures.range
    made: dict[str, np.ndarray] = {
        name: np.empty((len(pictures), 1 if name == "shape" else 3, *pictures.size), np.uint8)
        for name in MECHANISMS
    }
    numbers = np.asarray(labels)
    for k, mask in enumerate(read):
        pixels = pictures.pixels(slice(k, k + 1))[0]
        pixels = (pixels - np.float32(low)) * np.float32(255 / (high - low))
        entry = recipe.entry(pixels, mask, k)
        if isinstance(entry, str):
            raise ValueError(
                f"bank masks: photo {k} cannot be used: {entry}. Leave out photos that cgnrt.real.usable refuses."
            )
        for name, picture in entry.items():
            made[name][k] = picture
    if classes is None:
        classes = [str(k) for k in _numbers(numbers)]
    parts = contents(made, numbers, classes, sources, recipe)
    return write_bank(
        path,
        shape=parts["shape"],
        texture=parts["texture"],
        background=parts["background"],
        family=FAMILY,
        store=storage.store,
        quality=storage.quality,
        force=force,
    )


def _numbers(labels: np.ndarray) -> Iterator[int]:
    """As many class numbers as the labels have; none where they are not integers, which is refused elsewhere."""
    return iter(np.arange(int(labels.max(initial=-1)) + 1).tolist() if labels.dtype.kind in "iu" else [])
